"""A mistake in this package ends with a traceback and status 1, wherever it is; one in the user's code names its line."""

import dataclasses
import json
from pathlib import Path

import pytest

from flan_jax import cli
from flan_jax.commands import doctor
from flan_jax.data.manifest import Request
from flan_jax.optim import schedules
from flan_jax.run import export_process
from tests.integration.conftest import arguments
from tests.mistyped import mistype

pytestmark = pytest.mark.tensorflow

LENGTHS = {"inputs": 16, "targets": 8}
TASKS = """
from flan_jax.tasks import registry
from flan_jax.tasks.exporting import shards
from flan_jax.tasks.formats.declare import jsonl_task
from tests.mistyped import mistype


def normalize(row):
    return {NORMALIZED}


registry.register(jsonl_task("mine", "rows.jsonl", cluster="c", inputs="{q}", targets="{a}", normalizer=normalize))
if MISTYPED:
    mistype(shards.publish, "manifest.num_shards", "manifest.nmu_shards")
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A user's module that registers a task, and that can mistype the package of the process that imports it."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps({"q": f"q{n}", "a": "a"}) + "\n" for n in range(4)))

    def write(*, mistyped=False, normalized="row"):
        Path("tasks.py").write_text(TASKS.replace("MISTYPED", str(mistyped)).replace("{NORMALIZED}", normalized))
        return ["export", "--mixture_or_task_name=mine", "--mixture_or_task_module=tasks.py", "--export_dir=export",
                f"--task_feature_lengths={LENGTHS}", "--splits=train", "--vocabulary=bytes"]  # fmt: skip

    return write


def defect(args, capfd, text):
    """Runs a command line that must end as a defect."""
    capfd.readouterr()
    assert cli.run(args) == 1
    error = capfd.readouterr().err
    assert "Traceback" in error and text in error
    assert "This is a defect of flan_jax, not of your input: please report it" in error
    assert "flan-jax: " not in error


def test_in_a_verb(monkeypatch, capfd):
    monkeypatch.setattr(doctor, "_python", doctor._python)
    mistype(doctor._python, 'Finding("Python"', 'Finding({}["pyhton"]')
    defect(["doctor"], capfd, "KeyError: 'pyhton'")


def test_below_gin(export_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(schedules, "_check", schedules._check)
    mistype(schedules._check, "if not learning_rate", "if not {}['pyhton']")
    defect(arguments(f"EXPORT_DIR={export_dir}", f"MODEL_DIR={tmp_path}/run"), capfd, "KeyError: 'pyhton'")


def test_in_the_export_process(tasks, capfd):
    defect(tasks(mistyped=True), capfd, "AttributeError: 'TaskManifest' object has no attribute 'nmu_shards'")


def test_in_an_export_worker(tasks, capfd):
    tasks(mistyped=True)
    request = Request(name="mine", lengths=LENGTHS, module="tasks.py", vocabulary="bytes")
    order = {"request": dataclasses.asdict(request), "export_dir": "export", "task": "mine", "split": "train"}
    with export_process.start() as worker:
        with pytest.raises(RuntimeError, match="An export process ended with status 1 while it exported 'mine'"):
            worker.ask(order, work="exported 'mine'")
    assert "AttributeError: 'TaskManifest' object has no attribute 'nmu_shards'" in capfd.readouterr().err


@pytest.mark.usefixtures("exporting_here")
def test_a_users_normalizer_that_fails_names_row_and_line(tasks, capfd):
    assert cli.run(tasks(normalized='{**row, "a": int(row["a"])}')) == 2
    error = capfd.readouterr().err
    assert (
        "rows.jsonl:1: the normalizer of task 'mine' failed on {'q': 'q0', 'a': 'a'}: tasks.py, line 9: ValueError"
        in error
    )
    assert "Traceback" not in error


def test_a_traceback_of_the_export_process_is_shown_when_requested(tasks, capfd):
    assert cli.run([*tasks(normalized='{**row, "a": int(row["a"])}'), "--traceback"]) == 2
    assert "    return {**row," in capfd.readouterr().err


def test_a_users_module_that_fails_below_gin_names_its_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_schedules.py").write_text("def broken():\n    return {}['pyhton']\n")
    Path("my.gin").write_text(
        "from __gin__ import dynamic_registration\nimport my_schedules\nfrom flan_jax.commands import doctor\n"
        "doctor.doctor.expect = @my_schedules.broken()\n"
    )
    assert cli.run(["doctor", "--gin_file=my.gin", "--gin_allow=my_schedules"]) == 2
    assert "flan-jax: my_schedules.py, line 2: KeyError: 'pyhton'" in capfd.readouterr().err
    Path("my_schedules.py").write_text("import not_there\n")
    monkeypatch.delitem(__import__("sys").modules, "my_schedules")
    assert cli.run(["doctor", "--gin_file=my.gin", "--gin_allow=my_schedules"]) == 2
    assert "flan-jax: my_schedules.py, line 1: ModuleNotFoundError: No module" in capfd.readouterr().err
