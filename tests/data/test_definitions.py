import os

import pytest

from flan_jax.data import definitions
from flan_jax.data.manifest import Request
from tests.data.export_made_by_hand import LENGTHS, write_mixture


def request(**changes):
    return Request(**{"name": "toys", "lengths": LENGTHS, **changes})


def found(manifest, asked, *, missing_is_change=True):
    return list(definitions.changes(manifest, asked, missing_is_change=missing_is_change))


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_tasks.py"
    path.write_text("a = 1\n")
    return path


def exported(tmp_path, asked, files=()):
    return write_mixture(tmp_path / "export", asked, {"a": 1}, files=files)


def test_package_files_are_those_that_patterns_match_sorted():
    files = definitions.package_files(["flan_jax/vocab.py", "flan_jax/templates/**/*.yaml", "flan_jax/none/*.py"])
    assert "flan_jax/vocab.py" in files and "flan_jax/templates/embedded.yaml" in files
    assert not any(file.endswith(".py") for file in files[:-1]) and list(files) == sorted(files)


@pytest.mark.parametrize("word", ["my_tasks", "my_tasks.py", "./my_tasks.py"])
def test_a_changed_module_is_noticed_and_a_touched_one_is_not(tmp_path, module, word):
    asked = request(module=word)
    manifest = exported(tmp_path, asked, [(str(module), "module")])
    assert found(manifest, asked) == []
    os.utime(module, ns=(1, 1))
    assert found(manifest, asked) == []
    module.write_text("a = 2\n")
    assert found(manifest, asked) == [f"{module} has changed"]


def test_files_of_unchanged_size_and_time_are_not_read(tmp_path, module, monkeypatch):
    asked = request(module="my_tasks")
    manifest = exported(tmp_path, asked, [(str(module), "module")])
    monkeypatch.setattr(definitions, "sha256_of_file", None)
    assert found(manifest, asked) == []


def test_the_same_name_in_another_directory_is_another_module(tmp_path, module, monkeypatch):
    asked = request(module="my_tasks")
    manifest = exported(tmp_path, asked, [(str(module), "module")])
    other = tmp_path / "other" / "my_tasks.py"
    other.parent.mkdir()
    monkeypatch.chdir(other.parent)
    other.write_text("a = 1\n")
    assert found(manifest, asked) == []  # A copy says the same.
    other.write_text("a = 2\n")
    assert found(manifest, asked) == [f"my_tasks is now {other}, not {module}"]


def test_a_module_that_is_gone_is_a_change_unless_the_export_was_moved(tmp_path, module):
    asked = request(module="my_tasks.py")
    manifest = exported(tmp_path, asked, [(str(module), "module")])
    module.unlink()
    assert found(manifest, asked) == [f"{module} is gone"]
    assert found(manifest, asked, missing_is_change=False) == []


def test_exported_data_may_be_removed_but_not_changed(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    manifest = exported(tmp_path, request(), [(str(rows), "data")])
    rows.write_text('{"a": 1}\n')
    assert found(manifest, request()) == [f"{rows} has changed"]
    rows.unlink()
    assert found(manifest, request()) == []


def test_a_pattern_changes_when_it_matches_another_file(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    pattern = str(tmp_path / "*.jsonl")
    manifest = exported(tmp_path, request(), [(pattern, "data")])
    assert found(manifest, request()) == []
    (tmp_path / "b.jsonl").write_text("{}\n")
    assert found(manifest, request()) == [f"{pattern} has changed"]


def test_a_changed_vocabulary_file_is_noticed(tmp_path):
    model = tmp_path / "my.model"
    model.write_bytes(b"1")
    asked = request(vocabulary=str(model))
    manifest = exported(tmp_path, asked, [(str(model), "vocabulary")])
    assert definitions.given_files(asked) == {str(model): str(model)}
    model.write_bytes(b"2")
    assert found(manifest, asked) == [f"{model} has changed"]


def test_large_files_are_compared_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(definitions, "LARGEST_DIGESTED_BYTES", 3)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("1234")
    manifest = exported(tmp_path, request(), [(str(rows), "data")])
    assert manifest.definition_files[str(rows)].digest.startswith("size:4 mtime_ns:")
    assert found(manifest, request()) == []
    os.utime(rows, ns=(1, 1))
    assert found(manifest, request()) == [f"{rows} has changed"]


def test_added_and_removed_package_files_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(definitions, "PACKAGE", tmp_path / "flan_jax")
    (tmp_path / "flan_jax" / "templates").mkdir(parents=True)
    for name in ("vocab.py", "templates/old.py"):
        (tmp_path / "flan_jax" / name).touch()
    manifest = exported(tmp_path, request())
    assert found(manifest, request()) == []
    (tmp_path / "flan_jax" / "templates" / "new.py").touch()
    assert found(manifest, request()) == ["flan_jax/templates/new.py is new in this version of flan_jax"]
    (tmp_path / "flan_jax" / "templates" / "new.py").unlink()
    (tmp_path / "flan_jax" / "templates" / "old.py").unlink()
    assert found(manifest, request()) == ["flan_jax/templates/old.py is gone in this version of flan_jax"]


def test_a_folder_named_by_the_environment_is_compared_with_the_exports(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("{}\n")
    monkeypatch.setenv("FLAN_JAX_TOYS_DIR", str(tmp_path / "one"))
    monkeypatch.setenv("FLAN_JAX_OTHERS_DIR", str(tmp_path / "two"))
    folders = definitions.given_folders([str(tmp_path / "one" / "rows.jsonl")])
    assert folders == {"$FLAN_JAX_TOYS_DIR": str(tmp_path / "one")}
    import dataclasses

    manifest = dataclasses.replace(exported(tmp_path, request()), given_files=folders)
    assert found(manifest, request()) == []
    monkeypatch.setenv("FLAN_JAX_TOYS_DIR", str(tmp_path / "two"))
    (change,) = found(manifest, request())
    assert change == f"$FLAN_JAX_TOYS_DIR is now {tmp_path / 'two'}, not {tmp_path / 'one'}"
    monkeypatch.delenv("FLAN_JAX_TOYS_DIR")
    assert found(manifest, request()) == []


def test_a_file_named_by_the_environment_counts_like_a_folder(tmp_path, monkeypatch):
    archive = tmp_path / "templates.zip"
    archive.touch()
    monkeypatch.setenv("FLAN_JAX_TOYS_DIR", str(archive))
    assert definitions.given_folders([str(archive)]) == {"$FLAN_JAX_TOYS_DIR": str(archive)}
    assert definitions.given_folders([str(tmp_path / "templates.zip.old")]) == {}


def test_modules_are_found_without_being_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack" / "inner").mkdir(parents=True)
    for path in ("pack/__init__.py", "pack/leaf.py", "pack/inner/__init__.py"):
        (tmp_path / path).write_text("raise SystemExit('imported')\n")
    assert definitions.module_file("pack") == str(tmp_path / "pack/__init__.py")
    assert definitions.module_file("pack.leaf") == str(tmp_path / "pack/leaf.py")
    assert definitions.module_file("pack.inner") == str(tmp_path / "pack/inner/__init__.py")
    assert definitions.module_file("flan_jax.collections.embedded.collection") is None
    assert definitions.module_file("no_such_module_anywhere") is None
