"""The export process's answer to an order, in this process, so that TensorFlow is loaded once for all tests."""

import pytest

from flan_jax.run import export_process

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 32, "targets": 8}
YAML = """
tasks:
  mine: {cluster: c, source: jsonl, splits: {train: train.jsonl}, templates: [{inputs: "{q}", targets: "{a}"}]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's tasks, and empty registries."""
    import seqio

    from flan_jax.tasks import registration

    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(registration, "state", registration.State())
    (tmp_path / "train.jsonl").write_text('{"q": "q", "a": "a"}\n')
    (tmp_path / "mine.yaml").write_text(YAML)
    return tmp_path


def answer(folder, *, name="mine", module="mine.yaml"):
    requests = [{"name": name, "lengths": LENGTHS, "module": str(folder / module)}]
    return export_process.answer({"requests": requests, "export_dir": str(folder / "export"), "processes": 1})


def test_requests_are_exported(folder):
    assert answer(folder) == {}
    assert len(list((folder / "export").rglob("manifest.json"))) == 1


def test_a_refused_export_publishes_nothing(folder):
    (folder / "train.jsonl").write_text('{"q": 1}\n')
    with pytest.raises(ValueError, match="names the field 'a'"):
        answer(folder)
    assert not list((folder / "export").rglob("manifest.json"))


def test_an_unknown_name_is_reported_to_the_user(folder):
    with pytest.raises(ValueError, match="Unknown task or mixture 'mien'. Did you mean 'mine'?"):
        answer(folder, name="mien")


def test_an_error_of_a_users_module_names_its_line(folder):
    (folder / "broken.py").write_text("\nraise ValueError('in my module')\n")
    with pytest.raises(ValueError, match="broken.py, line 2: ValueError: in my module"):
        answer(folder, module="broken.py")
