import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from flan_jax.commands import export as command
from flan_jax.data.manifest import MixtureManifest, Request, VocabularyRef
from flan_jax.run import export_process

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 32, "targets": 8}


@pytest.fixture
def yaml(tmp_path):
    """A user's file with a task of three training and one validation row."""
    rows = "".join(json.dumps({"q": f"q{i}", "a": f"a{i}"}) + "\n" for i in range(3))
    (tmp_path / "train.jsonl").write_text(rows)
    (tmp_path / "validation.jsonl").write_text('{"q": "q", "a": "a"}\n')
    path = tmp_path / "mine.yaml"
    path.write_text(
        "tasks:\n  mine:\n    cluster: c\n    source: jsonl\n"
        "    splits: {train: train.jsonl, validation: validation.jsonl}\n"
        "    templates: [{inputs: '{q}', targets: '{a}'}]\n"
    )
    return path


def arguments(yaml, **changes):
    return {
        "mixture_or_task_name": "mine",
        "mixture_or_task_module": str(yaml),
        "task_feature_lengths": LENGTHS,
        "vocabulary": "bytes",
        "export_dir": str(yaml.parent / "export"),
        **changes,
    }


def as_text(exported):
    console = Console(width=1000, file=io.StringIO())
    console.print(exported)
    return console.file.getvalue()


def test_a_users_file_is_exported_shown_and_found_again(yaml, capfd, monkeypatch):
    exported = command.export(**arguments(yaml))
    shown = as_text(exported)
    rows = [line.split() for line in shown.splitlines() if line.split()[:1] == ["mine"] and "/" in line]
    assert [row for row in rows if row[1].isdecimal()] == [
        ["mine", "3", "9", "/", "9", "0", "/", "0", "0", "1"],
        ["mine", "1", "2", "/", "2", "0", "/", "0", "0", "1"],
    ]
    assert "mine (train)" in shown and "mine (validation)" in shown
    assert "tasks" not in shown  # One task needs no sum.
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Exporting mine (train): 1 of 1 task, 3 examples" in printed.err
    assert "tensorflow" not in printed.err.lower()
    monkeypatch.setattr(export_process, "start", None)
    assert command.export(**arguments(yaml)) == exported


def test_splits_that_no_task_has_are_skipped_and_named(yaml, monkeypatch):
    def answer(requests, *, export_dir, processes):
        assert [r.split for r in requests] == ["test", "dev"]
        return tuple(empty_manifest(request) for request in requests)

    monkeypatch.setattr(export_process, "ensure_exports", answer)
    with pytest.raises(
        ValueError, match=r"(?s)Nothing of 'mine' to export.*1 task \(mine\): has no split 'test', only train"
    ):
        command.export(**arguments(yaml, splits="test, dev"))
    manifest = empty_manifest(Request(name="mine", split="dev", lengths=LENGTHS))
    shown = as_text(command.Exported(manifests=[manifest], export_dir=yaml.parent))
    assert "Skipped in mine (dev): 1 task (mine): has no split 'dev', only train" in shown


def empty_manifest(request):
    vocabulary = VocabularyRef(kind="bytes", digest="d", size=259, eos_id=1)
    skipped = {"mine": f"has no split {request.split!r}, only train"}
    return MixtureManifest(
        request=request, members=(), skipped=skipped, vocabulary=vocabulary, definition_files={}, given_files={}
    )


def test_importing_the_command_loads_no_tensorflow():
    code = "import sys, flan_jax.commands.export; assert not {'tensorflow', 'seqio', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
