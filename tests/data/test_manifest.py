import dataclasses
import json

import pytest

from flan_jax.data import manifest as m
from flan_jax.data.manifest import Request
from flan_jax.files import json_with_digest
from flan_jax.settings import from_json
from tests.data.export_made_by_hand import LENGTHS, VOCABULARY, write_mixture, write_task


def request(**changes):
    return Request(**{"name": "toys", "lengths": LENGTHS, **changes})


def test_a_task_manifest_reads_back_equal(tmp_path):
    directory = write_task(tmp_path, [([5, 1], [6, 1])])
    written = m.read_task(directory)
    assert written.vocabulary == VOCABULARY
    assert written.metadata.metrics == ("exact_match",)
    assert m.to_json(written) == (directory / "manifest.json").read_text()


def test_a_mixture_manifest_reads_back_equal(tmp_path):
    written = write_mixture(tmp_path, request(), {"a": 2, "b": 1})
    assert m.read_mixture(request().manifest_path(tmp_path)) == written
    assert written.num_examples == 3


def test_equal_manifests_are_equal_bytes_whatever_the_order_of_their_fields(tmp_path):
    one = write_mixture(tmp_path, request(), {"a": 1})
    shuffled = dataclasses.replace(one, definition_files=dict(reversed(one.definition_files.items())))
    assert m.to_json(one) == m.to_json(shuffled)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "others"},
        {"split": "validation"},
        {"lengths": {"inputs": 8, "targets": 5}},
        {"module": "mine"},
        {"vocabulary": "bytes"},
        {"tfds_data_dir": "/data"},
    ],
)
def test_what_decides_the_answer_is_in_the_key(change):
    assert request(**change).key() != request().key()


def test_what_only_refuses_answers_is_not_in_the_key():
    assert request(max_truncated_targets=0.5, on_missing_split="error").key() == request().key()


def test_the_manifest_of_a_request_is_named_after_it(tmp_path):
    path = request(name="glue:v2", split="validation").manifest_path(tmp_path)
    assert path.parent == tmp_path / "mixtures"
    assert path.name.startswith("glue_v2-") and "-validation-" in path.name


def test_a_mixture_is_known_by_what_it_trains_on_and_not_by_where_that_came_from(tmp_path):
    one = write_mixture(tmp_path, request(), {"a": 2, "b": 1})
    assert one.fingerprint() == dataclasses.replace(one, definition_files={}, given_files={"x": "y"}).fingerprint()
    members = (dataclasses.replace(one.members[0], rate=9.0), one.members[1])
    assert one.fingerprint() != dataclasses.replace(one, members=members).fingerprint()


@pytest.mark.parametrize(
    "lengths", [{"inputs": 8}, {"inputs": 8, "targets": 1}, {"inputs": 8.5, "targets": 4}, {}, "8"]
)
def test_lengths_that_hold_nothing_are_refused(lengths):
    with pytest.raises(ValueError, match=r"the lengths of 'toys': got .* expected .*TASK_FEATURE_LENGTHS"):
        request(lengths=lengths)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(
        ValueError, match=r"max_truncated_targets: expected a number of at least 0 and at most 1, got 5"
    ):
        request(max_truncated_targets=5)


def test_differences_name_the_field_both_values():
    got = {"lengths": {"inputs": 64, "targets": 8}, "split": "train"}
    wanted = {"lengths": {"inputs": 64, "targets": 16}, "split": "train", "module": "mine"}
    assert m.differences(got, wanted) == ["lengths.targets: got 8, expected 16", "module: got None, expected 'mine'"]
    assert m.differences(got, got) == []


def test_an_absent_manifest_says_that_nothing_was_exported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest.json in .*Run `flan-jax export`"):
        m.read_task(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", r"is damaged: it is not as it was written. Delete it and run `flan-jax export`"),
        ("[]", r"is damaged"),
        ({"format_version": 99}, r"format_version: got 99, expected 3"),
        ({"surprise": 1}, r"manifest.json: unknown key 'surprise'. .*Run `flan-jax export` again"),
        ({"rows_read": None}, r"the key 'rows_read' is missing"),
    ],
)
def test_a_manifest_of_another_format_is_refused_by_field(tmp_path, change, message):
    directory = write_task(tmp_path, [([5, 1], [6, 1])])
    path = directory / "manifest.json"
    if isinstance(change, dict):
        value = {k: v for k, v in {**json.loads(path.read_text()), **change}.items() if v is not None and k != "sha256"}
        change = json_with_digest(value)
    path.write_text(change)
    with pytest.raises(ValueError, match=message):
        m.read_task(directory)


def test_a_request_survives_the_way_to_the_child():
    asked = request(module="a,b.py", vocabulary="bytes")
    assert from_json(json.loads(json.dumps(dataclasses.asdict(asked))), Request, file="order") == asked
    with pytest.raises(ValueError, match="order: the key 'lengths' is missing; got name"):
        from_json({"name": "toys"}, Request, file="order")


def test_the_share_of_cut_targets_is_of_the_examples_kept(tmp_path):
    manifest = m.read_task(write_task(tmp_path, [([5, 1], [6, 1])] * 4))
    assert dataclasses.replace(manifest, truncated={"inputs": 3, "targets": 1}).truncated_targets_share == 0.25
