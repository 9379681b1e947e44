"""Paths are normalized once; buckets are read through TensorStore with the interface of paths."""

from pathlib import Path

import pytest

from flan_jax.errors import UserError
from flan_jax.paths import BucketPath, directory_spec, location, stored_keys, user_path


@pytest.fixture
def bucket(tmp_path):
    """A bucket backed by a directory: only the store differs."""
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "index").write_bytes(b"text")
    (tmp_path / "models" / "notes").write_bytes(b"")
    return BucketPath(root={"driver": "file", "path": f"{tmp_path}/"}, path="")


def test_a_bucket_path_behaves_like_a_path(bucket):
    models = bucket / "models"
    assert (models.exists(), models.is_dir(), models.is_file()) == (True, True, False)
    index = models / "small" / "index"
    assert (index.exists(), index.is_dir(), index.is_file()) == (True, False, True)
    assert ((models / "none").exists(), (models / "none").is_dir()) == (False, False)
    assert [child.name for child in models.iterdir()] == ["notes", "small"]
    assert (index.read_bytes(), index.read_text(), index.name, index.parent) == (
        b"text",
        "text",
        "index",
        models / "small",
    )
    assert str(index) == "gs:///models/small/index"
    assert stored_keys(models) == {"notes", "small/index"}


def test_a_missing_object_is_named(bucket):
    with pytest.raises(FileNotFoundError, match="There is no gs:///models/none"):
        (bucket / "models" / "none").read_bytes()


def test_a_bucket_that_cannot_be_read_is_named_with_the_reason():
    with pytest.raises(ValueError, match=r"gs://x/models cannot be read: .*Invalid GCS bucket name"):
        location("gs://x/models").exists()


def test_a_location_is_a_local_path_or_a_name_in_a_bucket(tmp_path):
    assert location(tmp_path) == tmp_path
    assert location("models") == Path("models").absolute()
    bucket = location("gs://some-bucket/models/small/")
    assert directory_spec(bucket) == {"driver": "gcs", "bucket": "some-bucket", "path": "models/small/"}
    assert directory_spec(bucket.parent.parent) == {"driver": "gcs", "bucket": "some-bucket", "path": ""}
    assert directory_spec(tmp_path) == {"driver": "file", "path": f"{tmp_path}/"}


def test_every_spelling_of_a_local_path_becomes_one(tmp_path, monkeypatch):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = ("runs/first", "./runs/../runs/first/", "~/runs/first", "latest", str(tmp_path / "latest" / "."))
    assert {user_path(spelling) for spelling in spellings} == {tmp_path / "runs" / "first"}
    assert user_path("latest/absent") == tmp_path / "runs" / "first" / "absent"


def test_a_link_to_a_file_keeps_its_suffix(tmp_path):
    (tmp_path / "0123abcd").write_text("pieces")
    (tmp_path / "spiece.model").symlink_to("0123abcd")
    assert user_path(tmp_path / "spiece.model") == tmp_path / "spiece.model"


def test_a_relative_path_in_a_file_starts_from_the_file_s_folder(tmp_path):
    assert user_path("../rows.jsonl", base=tmp_path / "tasks") == tmp_path / "rows.jsonl"
    assert user_path("/rows.jsonl", base=tmp_path) == Path("/rows.jsonl")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/run", "'gs://bucket/run' is not a local path. Only checkpoints are read from buckets"),
        ("~no-such-user/run", "'~no-such-user/run' cannot be used as a path: Could not determine home directory"),
        ("a\0b", "cannot be used as a path: embedded null byte"),
    ],
)
def test_a_path_that_cannot_be_local_is_refused(path, message):
    with pytest.raises(UserError, match=message):
        user_path(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [("s3://bucket/models", "neither a local path nor in a gs:// bucket"), ("gs:///models", "names no bucket")],
)
def test_a_path_of_another_service_or_of_no_bucket_is_refused(path, message):
    with pytest.raises(ValueError, match=message):
        location(path)
