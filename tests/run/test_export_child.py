"""The export child: its exit status, and the message that it leaves for its parent."""

import json

import pytest

from flan_jax.run import export_child

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 32, "targets": 8}
YAML = """
tasks:
  mine: {cluster: c, source: jsonl, splits: {train: train.jsonl}, templates: [{inputs: "{q}", targets: "{a}"}]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"q": "q", "a": "a"}\n')
    (tmp_path / "mine.yaml").write_text(YAML)
    return tmp_path


def child(folder, *, name="mine", module="mine.yaml"):
    """Runs the child's entry in this process, so that TensorFlow is loaded once for all tests."""
    (folder / "order.json").write_text(json.dumps([{"name": name, "lengths": LENGTHS, "module": str(folder / module)}]))
    return export_child.export(str(folder / "order.json"), str(folder / "export"), str(folder / "answer"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Empty registries for one test, and no watch over standard input."""
    import seqio

    from flan_jax.tasks import registration

    monkeypatch.setattr(export_child, "leave_with_parent", lambda: None)
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(registration, "state", registration.State())


def test_the_child_ends_with_0_when_everything_is_exported(folder, in_this_process):
    assert child(folder) == 0
    assert len(list((folder / "export").rglob("manifest.json"))) == 1


def test_the_child_ends_with_2_and_leaves_its_message(folder, in_this_process):
    (folder / "train.jsonl").write_text('{"q": 1}\n')
    assert child(folder) == 2
    assert "names the field 'a'" in (folder / "answer").read_text()
    assert not list((folder / "export").rglob("manifest.json"))


def test_an_unknown_name_is_reported_to_the_user(folder, in_this_process):
    assert child(folder, name="mien") == 2
    message = json.loads((folder / "answer").read_text())["message"]
    assert message.startswith("Unknown task or mixture 'mien'. Did you mean 'mine'?")


def test_an_error_of_a_users_module_names_its_line(folder, in_this_process):
    (folder / "broken.py").write_text("\nraise ValueError('in my module')\n")
    assert child(folder, module="broken.py") == 2
    refusal = json.loads((folder / "answer").read_text())
    assert refusal["message"].endswith("broken.py, line 2: ValueError: in my module")
    assert refusal["traceback"].startswith("Traceback")


def test_an_interrupt_ends_quietly(folder, in_this_process, monkeypatch):
    from flan_jax.tasks.exporting import export

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export_requests", interrupted)
    assert child(folder) == 130
