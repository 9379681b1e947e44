import io
import re

import pytest

from flan_jax.tasks.exporting import progress
from flan_jax.tasks.exporting.progress import ExportProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_than_on_a_terminal_lines_come_every_few_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with ExportProgress(tasks=3, title="Exporting m (train)", stream=stream) as shown:
        for second in range(12):
            clock[0] = float(second)
            shown.examples_done(100)
        shown.task_done()
    assert stream.getvalue().splitlines() == [
        "Exporting m (train): 0 of 3 tasks, 600 examples",
        "Exporting m (train): 0 of 3 tasks, 1,100 examples",
        "Exporting m (train): 1 of 3 tasks, 1,200 examples in 11.0 s",
    ]


def test_a_terminal_gets_a_bar_and_a_last_line():
    stream = Terminal()
    with ExportProgress(tasks=2, title="Exporting m", stream=stream) as shown:
        shown.task_done()
        shown.examples_done(7)
        shown._bar.refresh()
    assert "1/2" in stream.getvalue()
    assert "7 examples" in stream.getvalue()
    assert re.search(r"Exporting m: 1 of 2 tasks, 7 examples in \d+\.\d s\n$", stream.getvalue())


def test_a_failure_has_no_last_line():
    stream = io.StringIO()
    with pytest.raises(KeyError), ExportProgress(tasks=1, title="Exporting m", stream=stream):
        raise KeyError
    assert stream.getvalue() == ""
