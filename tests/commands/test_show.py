"""`flan-jax show`: JSON for programs, tables for people, and TensorFlow only where it is needed."""

import dataclasses
import io
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from rich.console import Console

from flan_jax import cli
from flan_jax.checkpoint.digest import params_digest
from flan_jax.checkpoint.manager import CheckpointPolicy, Checkpoints
from flan_jax.commands.show import NOUNS, show
from flan_jax.data.manifest import Request
from flan_jax.evaluation.directory import EvaluatedTask, EvaluationRecord, begin, write_finished
from flan_jax.evaluation.prediction import Prediction
from flan_jax.evaluation.results import SuiteResult, TaskResult, write_summary
from flan_jax.evaluation.task_scores import ScoredTask
from flan_jax.run.directory import RunDirectory
from tests.data.export_made_by_hand import LENGTHS, write_mixture


@struct.dataclass
class State:
    step: jnp.ndarray
    params: dict
    opt_state: dict


PARAMS = {"encoder": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "scale": np.ones(4, jnp.bfloat16)}


@pytest.fixture
def run(tmp_path):
    """A run's directory as training leaves it."""
    directory = RunDirectory(path=tmp_path / "run")
    directory.open({"identity": {}, "versions": {"jax": "1.2"}, "devices": {"count": 8}}, config="")
    with Checkpoints(
        directory.checkpoints,
        policy=CheckpointPolicy(),
        metadata={"model": {"emb_dim": 3}, "vocabulary_digest": "0123456789abcdef"},
    ) as saved:
        for step in (3, 5):
            saved.save(State(jnp.int32(step), PARAMS, {}), data_state={}, metrics={"eval/mean": 50.0 + step})
    directory.metrics_file.write_text('{"step": 5, "kind": "train", "loss": 2.25}\n')
    (directory.evaluations / "5").mkdir(parents=True)
    task = TaskResult(
        task="sums", split="validation", cluster="numbers", label="trained", evaluation="rank", main_metric="accuracy",
        metrics={"accuracy": 62.5, "positive_f1": 48.25}, standard_errors={"accuracy": 17.1, "positive_f1": 9.9},
        majority={"accuracy": 55.5}, chance={"accuracy": 50.0}, num_examples=8,
    )  # fmt: skip
    write_summary(directory.evaluations / "5", SuiteResult(step=5, tasks=(task,)))
    return directory.path


@pytest.fixture
def export(tmp_path):
    write_mixture(tmp_path / "exports", Request(name="toys", lengths=LENGTHS), {"toy": 2})
    return tmp_path / "exports"


def as_json(*arguments, **options):
    """What `--json` prints, as a program reads it."""
    return json.loads(json.dumps(show(*arguments, **options).data, default=str))


def as_text(*arguments, **options):
    """What a person reads."""
    console = Console(width=1000, file=io.StringIO())
    console.print(show(*arguments, **options))
    return console.file.getvalue()


def test_a_run_shows_step_digest_last_metrics_and_last_evaluation(run):
    data = as_json("run", str(run))
    assert (data["step"], data["checkpoints"]) == (5, [3, 5])
    assert data["params_digest"] == params_digest(PARAMS)
    assert data["metrics"] == {"step": 5, "kind": "train", "loss": 2.25}
    assert data["evaluation"]["tasks"][0]["metrics"] == {"accuracy": 62.5, "positive_f1": 48.25}
    assert data["record"]["versions"] == {"jax": "1.2"}
    table = as_text("run", str(run))
    assert params_digest(PARAMS) in table and "62.5 ± 17.1" in table and "2.25" in table and "count 8" in table
    assert all(shown in table for shown in ("positive_f1", "48.2 ± 9.9", "55.5", "50.0", "examples 8"))


def test_a_run_that_has_saved_nothing_yet_is_shown(tmp_path):
    RunDirectory(path=tmp_path).open({"identity": {}}, config="")
    data = as_json("run", str(tmp_path))
    assert [data[key] for key in ("step", "params_digest", "metrics", "evaluation")] == [None] * 4
    assert "params_digest" in as_text("run", str(tmp_path))


def test_a_checkpoint_shows_names_shapes_dtypes_and_bytes(run):
    data = as_json("checkpoint", str(run), step=3)
    assert data["arrays"] == [
        {"name": "encoder/kernel", "shape": [2, 3], "dtype": "float32", "bytes": 24},
        {"name": "scale", "shape": [4], "dtype": "bfloat16", "bytes": 8},
    ]
    assert (data["parameters"], data["bytes"], data["step"]) == (10, 32, 3)
    assert data["params_digest"] == params_digest(PARAMS)
    assert data["metrics"] == {"eval/mean": 53.0} and data["metadata"]["model"] == {"emb_dim": 3}
    table = as_text("checkpoint", str(run / "checkpoints" / "5"))
    assert "2 x 3" in table and "10 parameters" in table and "in the exports of its run, digest 0123456789ab" in table


def test_an_export_shows_its_manifests_and_what_is_unfinished(export):
    (export / "tasks" / "toy-ffffffffffff" / "validation.partial").mkdir()
    data = as_json("export", str(export))
    (task,) = data["tasks"]
    assert (task["name"], task["split"], task["examples"]) == ("toy", "train", 2)
    assert (task["tokens"], task["folder"]) == ({"inputs": 4, "targets": 4}, "toy-ffffffffffff/train")
    assert data["partial"] == ["tasks/toy-ffffffffffff/validation.partial"]
    (mixture,) = data["mixtures"]
    assert (mixture["name"], mixture["members"], mixture["examples"]) == ("toys", 1, 2)
    table = as_text("export", str(export))
    assert mixture["fingerprint"][:12] in table and mixture["fingerprint"][:13] not in table
    assert max(map(len, table.rstrip().splitlines())) <= 80 + len(str(export))
    assert "8 / 4" in table and "unfinished: tasks/toy-ffffffffffff/validation.partial" in table


def test_an_empty_directory_is_no_export(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No export in .*: it has no mixtures/\*.json and no tasks/"):
        show("export", str(tmp_path))


def test_runs_checkpoints_and_exports_are_shown_without_tensorflow(run, export):
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["seqio"] = None
from flan_jax import cli
for what, name in {[("run", str(run)), ("checkpoint", str(run)), ("export", str(export))]!r}:
    assert cli.run(["show", what, name, "--json"]) == 0
"""
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert len([json.loads(line) for line in out.stdout.splitlines()]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tsks",), r"what to show must be one of tasks, mixtures, .*; got 'tsks'. Did you mean 'tasks'"),
        (("task",), "show which task. Write: flan-jax show task NAME"),
        (("run",), "show which run. Write: flan-jax show run PATH"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_fix(arguments, message):
    with pytest.raises(ValueError, match=message):
        show(*arguments)


def test_the_command_line_knows_what_can_be_shown():
    named = cli.VERBS["show"].does
    assert all(noun in named for noun in NOUNS)


@pytest.fixture
def rows(tmp_path):
    """A user's YAML file next to its rows."""
    rows = [{"country": "Peru", "capital": "Lima"}, {"country": "Kenya", "capital": "Nairobi"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(
        "vocabulary: bytes\n"
        "tasks:\n  capitals:\n    {cluster: places, source: jsonl, splits: {train: rows.jsonl}, templates: [\n"
        '      {name: ask, inputs: "Capital of {country}?", targets: "{capital}"},\n'
        '      {inputs: "{capital} is in", targets: "{country}", direction: inverted}]}\n'
        "mixtures:\n  places: {members: [capitals], cap: 1}\n"
    )
    return tmp_path / "mine.yaml"


@pytest.mark.tensorflow
def test_a_users_templates_are_rendered_on_the_first_rows(rows):
    data = as_json("template", str(rows), num_examples=1)
    ((row,),) = (task["rows"] for task in data["tasks"])
    assert [r["inputs"] for r in row["renderings"]] == ["Capital of Peru?", "Lima is in"]
    table = as_text("template", str(rows))
    assert "Capital of Kenya?" in table and "template 1, inverted" in table and "template 0 'ask'" in table


@pytest.mark.tensorflow
def test_tasks_and_mixtures_of_a_users_module_are_shown(registries, rows):
    module = {"mixture_or_task_module": str(rows)}
    lengths = {"inputs": 40, "targets": 12}
    task = as_json("task", "capitals", task_feature_lengths=lengths, num_examples=2, **module)
    assert task["raw"] == {"country": "Peru", "capital": "Lima"}
    assert task["renderings"][0]["tokens"]["targets"]["pieces"] == ["L", "i", "m", "a", "</s>"]
    assert len(task["packed"]["features"]["encoder_segment_ids"]) == 40
    mixture = as_json("mixture", "places", train_steps=10, batch_size=4, **module)
    (member,) = mixture["members"]
    shown = ("examples", "cap", "share_percent", "expected_epochs")
    assert [member[key] for key in shown] == [2, 1.0, 100.0, 20.0]
    assert "capitals" in {t["name"] for t in as_json("tasks", **module)["tasks"]}
    assert "each has every row of its task once" in as_text("mixture", "places", **module)
    assert "places" in {m["name"] for m in as_json("mixtures", **module)["mixtures"]}
    for arguments in (("task", "capitals"), ("mixture", "places"), ("tasks",), ("mixtures",)):
        assert arguments[-1] in as_text(*arguments, **module)


@pytest.mark.tensorflow
def test_members_without_the_split_are_listed_below_the_table(registries, rows):
    registries.import_module(str(rows))
    from flan_jax.tasks.sources.file_sources import InMemorySource

    data = {"validation": [{"country": "Mali", "capital": "Bamako"}]}
    record = registries.templated("capitals")
    registries.register(
        registries.TemplatedTask(
            name="held", source=InMemorySource(data=data), cluster="places", templates=record.templates[:1]
        ),
        vocabulary="bytes",
    )
    registries.register_mixture("two", [("capitals", 1.0), ("held", 1.0)])
    assert "skipped: capitals has no split 'validation', only train" in as_text("mixture", "two", split="validation")


@pytest.mark.tensorflow
def test_names_declared_by_a_collection_are_counted_and_shown_on_request(registries, rows):
    def define(name):
        registries.import_module(str(rows))
        record = registries.templated("capitals")
        registries.register(dataclasses.replace(record, name=name), vocabulary="bytes")
        return True

    registries.declare_collection("later", names=lambda: ["later_1", "later_2"], define=define)
    assert "later: 2 more names, registered on request" in as_text("tasks")
    assert [task["name"] for task in as_json("tasks", "later_2")["tasks"]] == ["later_2"]
    assert [task["name"] for task in as_json("tasks", "later*")["tasks"]] == ["later_1", "later_2"]


@pytest.mark.tensorflow
def test_problems_in_templates_are_shown_and_fail(registries, rows):
    text = rows.read_text()
    assert "1 task checked: 0 problems, 0 notes" in as_text("lint", str(rows))
    rows.write_text(
        text.replace("{name: ask,", '{inputs: "Capital of {country}?", targets: "{capital}"},\n{name: ask,')
    )
    assert "duplicate" in as_text("lint", str(rows))
    assert show("lint", str(rows)).exit_status == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--train_steps=-5", "--train_steps: expected a whole number of at least 1, got '-5'"),
        ("--batch_size=0", "--batch_size: expected a whole number of at least 1, got '0'"),
        ("--num_examples=many", "--num_examples: expected a whole number of at least 1, got 'many'"),
        ("--index=-1", "--index: expected a whole number of at least 0, got '-1'"),
        ("--task_feature_lengths={'inputs': 8}", "--task_feature_lengths: got {'inputs': 8}, expected {'inputs': S,"),
        ("--task_feature_lengths={'inputs': 'x', 'targets': 8}", "--task_feature_lengths: expected a mapping, got"),
    ],
)
def test_options_out_of_range_are_refused(capsys, option, message):
    assert cli.run(["show", "mixture", "embedded_train", option]) == 2
    assert message in capsys.readouterr().err


def test_show_evaluation_describes_one_and_compares_two(run, capsys):
    directory = run / "eval" / "5"
    assert as_json("evaluation", str(directory))["tasks"][0]["metrics"] == {"accuracy": 62.5, "positive_f1": 48.25}
    for name, predictions in (("a", ("yes", "no")), ("b", ("yes", "yes"))):
        task = ScoredTask(task="qa", split="test", cluster="c", label="t", evaluation="generate", metrics=("accuracy",))
        evaluated = EvaluatedTask(scored=task, identity="x", num_exported=2, num_examples=2)
        begin(run / name, EvaluationRecord(step=1, provenance={}, tasks=(evaluated,)))
        rows = [Prediction(index=i, references=("yes",), prediction=text) for i, text in enumerate(predictions)]
        write_finished(run / name, "qa", rows)
    (difference,) = as_json("evaluation", str(run / "a"), str(run / "b"))["differences"]
    assert (difference["difference"], difference["wins"], difference["ties"]) == (50.0, 1, 1)
    assert cli.run(["show", "evaluation", str(run / "a"), str(run / "b")]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert "accuracy 50.0 100.0 +50.0 0.0 to 100.0".split() in [line[:7] for line in shown]
    with pytest.raises(FileNotFoundError, match="summary.json of a finished evaluation"):
        show("evaluation", str(run))
    with pytest.raises(ValueError, match="show run takes one name or path"):
        show("run", str(run), str(run))
