"""No row takes more than its time, whatever its normalizer, filter or template does, and honest work is not disturbed."""

import itertools
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from flan_jax.errors import UserError
from flan_jax.tasks import rendering, template_lint, time_limit
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.filters.rule import RowRule
from flan_jax.tasks.interface import Encoded
from flan_jax.tasks.prompting import TaskPrompts
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.tasks.sources.rows import Record
from flan_jax.templates.render import Template


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setattr(time_limit, "ROW_SECONDS", 0.2)
    if signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):  # Of other tests in this process.
        signal.raise_signal(signal.SIGALRM)  # A tick between rows ends the timer.


class EndlessTemplate(Template):
    """A template whose rendering never ends, as one that a price is missing for."""

    def render(self, row, **more):
        while True:
            pass

    def prompt(self, row, **more):
        while True:
            pass


class EndlessFilter(RowRule):
    def reason(self, row):
        return "a" if re.match(r"(a+)+$", "a" * 60 + "b") else None


def endless_loop(row):
    while True:
        pass


def endless_loop_that_catches_exceptions(row):
    while True:
        try:
            time.sleep(10)
        except Exception:
            pass


def endless_generator(row):
    yield row
    yield from (row for _ in itertools.count() if False)


NORMALIZERS = {
    "loop": endless_loop,
    "caught": endless_loop_that_catches_exceptions,
    "regular_expression": lambda row: {**row, "q": re.sub(r"(a+)+$", "", "a" * 60 + "b")},
    "sleep": lambda row: time.sleep(1e6),
    "generator": endless_generator,
    "power": lambda row: {**row, "q": 7 ** (7**9)},
}


def toy(*, normalizer=None, template=Template, filters=(), on_bad_row="error", **more):
    source = InMemorySource(data={"train": [{"q": "a", "a": "b"}] * 3}, on_bad_row=on_bad_row)
    templates = (Template(inputs="{q}", targets="{a}"), template(inputs="{q}?", targets="{a}"))
    return TemplatedTask(
        name="toy", source=source, cluster="toys", templates=templates, normalizer=normalizer, filters=filters, **more
    )


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_normalizer_without_an_end_is_refused_with_its_row_and_line(name, on_bad_row):
    task = toy(normalizer=NORMALIZERS[name], on_bad_row=on_bad_row)
    message = r"^.*row 0.*: the normalizer or a filter of task 'toy' took more than 0.2 seconds. It was interrupted at "
    with pytest.raises(UserError, match=message + r"tests/tasks/test_time_limit.py, line \d+"):
        list(rendering.iter_rendered(task, "train", dropped=Counter()))


def test_a_template_without_an_end_is_refused_with_its_row_and_position():
    for do in (
        lambda task: list(rendering.iter_rendered(task, "train")),
        lambda task: rendering.preview(task, "train"),
        lambda task: TaskPrompts(task=task, template=1).of(Record({"q": "a"}, "row 0")),
    ):
        with pytest.raises(UserError, match=r"row [01]: template 1 of task 'toy' took more than 0.2 seconds"):
            do(toy(template=EndlessTemplate))


def test_a_template_without_an_end_is_named_where_ranked_options_are_checked():
    task = toy(template=EndlessTemplate, options=("b", "c"), evaluation="rank")
    source = InMemorySource(data={"validation": [{"q": "a", "a": "b"}]}, on_bad_row="skip")
    with pytest.raises(UserError, match=r"row 0.*: template 1 of task 'toy' took more than 0.2 seconds"):
        list(rendering.iter_rendered(TemplatedTask(**{**vars(task), "source": source}), "validation"))


def test_lint_reports_a_template_without_an_end():
    findings = template_lint.lint_task(
        toy(template=EndlessTemplate),
        encode=lambda rows: Encoded(records=[], lengths=None, truncated={}, dropped={}),
        lengths={},
    )
    assert [f.template for f in findings if "took more than 0.2 seconds" in f.detail] == [1]


def test_a_filter_without_an_end_is_refused():
    with pytest.raises(UserError, match=r"row 0.*a filter of task 'toy' took more than 0.2 seconds.*line \d+"):
        list(rendering.iter_rendered(toy(filters=(EndlessFilter(),)), "train"))


def test_many_rows_may_take_longer_together_and_so_may_their_reader():
    def slow(row):
        time.sleep(0.15)
        return row

    rows = rendering.iter_rendered(toy(normalizer=slow), "train")
    for _ in rows:
        time.sleep(0.3)  # The time of the caller is no row's.


def test_the_timer_ends_after_the_last_row_and_restores_the_earlier_handler():
    caught = []
    earlier = signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
    try:
        assert len(list(rendering.iter_rendered(toy(normalizer=dict), "train"))) == 3
        time.sleep(0.15)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and not caught
        signal.raise_signal(signal.SIGALRM)
        assert caught == [1]
    finally:
        signal.signal(signal.SIGALRM, earlier)


SLOW_EXIT = """
import time
from flan_jax.tasks import time_limit
time_limit.ROW_SECONDS = 0.4
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(1)
slow = Slow()
with time_limit.limited("task", "place"):
    pass
"""


def test_a_process_that_takes_long_to_exit_is_not_killed_by_the_timer():
    assert subprocess.run([sys.executable, "-c", SLOW_EXIT], check=False).returncode == 0
