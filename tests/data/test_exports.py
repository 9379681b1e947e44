import dataclasses
import subprocess
import sys

import pytest

from flan_jax import vocab
from flan_jax.data.exports import Unusable, ensure_all, find
from flan_jax.data.manifest import Request, read_task, write
from tests.data.export_made_by_hand import LENGTHS, write_mixture


def request(**changes):
    return Request(**{"name": "toys", "lengths": LENGTHS, **changes})


class Exporter:
    """Notes the splits of each call, and writes synthetic exports."""

    def __init__(self):
        self.calls = []

    def __call__(self, requests, export_dir):
        self.calls.append([r.split for r in requests])
        for asked in requests:
            write_mixture(export_dir, asked, {"a": 1})


def never(requests, export_dir):
    raise AssertionError(requests)


def ensure(asked, *, export_dir, use_cached="auto", exporter=never):
    return ensure_all([asked], export_dir=export_dir, use_cached=use_cached, exporter=exporter)[0]


def reason(asked, export_dir):
    answer = find(asked, export_dir)
    assert isinstance(answer, Unusable)
    return answer.reason


def test_an_up_to_date_export_is_found(tmp_path):
    written = write_mixture(tmp_path, request(), {"a": 2})
    assert find(request(), tmp_path) == written


def test_a_missing_export_is_reported(tmp_path):
    assert reason(request(), tmp_path / "new") == f"'toys', split 'train' has not been exported to {tmp_path / 'new'}"


def test_a_changed_definition_makes_it_stale(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    write_mixture(tmp_path, request(), {"a": 2}, files=[(str(rows), "data")])
    rows.write_text("{ }")
    assert reason(request(), tmp_path) == f"the export of 'toys', split 'train' is out of date: {rows} has changed"


def test_a_lost_shard_makes_it_unusable(tmp_path):
    manifest = write_mixture(tmp_path, request(), {"a": 2, "b": 3})
    (shard,) = (tmp_path / manifest.members[1].path).glob("*.array_record")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "the export of 'b' in" in reason(request(), tmp_path)
    assert "lacks bytes: examples-00000-of-00001.array_record has 131071, expected 131072" in reason(
        request(), tmp_path
    )
    shard.unlink()
    assert "has nothing, expected 131072" in reason(request(), tmp_path)


def test_a_lost_vocabulary_makes_it_unusable(tmp_path):
    manifest = write_mixture(tmp_path, request(), {"a": 2})
    digest = vocab.load("embedded", extra_ids=0).digest
    vocabulary = dataclasses.replace(manifest.vocabulary, file="vocabularies/my.model", digest=digest)
    manifest = dataclasses.replace(manifest, vocabulary=vocabulary)
    write(request().manifest_path(tmp_path), manifest)
    assert reason(request(), tmp_path).endswith("lacks its vocabulary, vocabularies/my.model")
    (tmp_path / "vocabularies").mkdir()
    model = tmp_path / "vocabularies" / "my.model"
    model.write_bytes(vocab.EMBEDDED_MODEL.read_bytes())
    assert find(request(), tmp_path) == manifest
    model.write_bytes(model.read_bytes()[:-1])
    assert reason(request(), tmp_path).endswith("has a damaged vocabulary, vocabularies/my.model")


def test_a_task_that_was_exported_again_with_another_size_makes_it_unusable(tmp_path):
    manifest = write_mixture(tmp_path, request(), {"a": 2})
    path = tmp_path / manifest.members[0].path / "manifest.json"
    write(path, dataclasses.replace(read_task(path.parent), num_examples=5))
    assert "num_examples: got 5, expected 2" in reason(request(), tmp_path)


def test_a_manifest_of_another_format_makes_it_unusable(tmp_path):
    write_mixture(tmp_path, request(), {"a": 2})
    request().manifest_path(tmp_path).write_text("{}")
    assert "cannot be read" in reason(request(), tmp_path)


def test_an_export_that_truncates_more_targets_than_the_run_allows_is_refused(tmp_path):
    manifest = write_mixture(tmp_path, request(), {"a": 4})
    path = tmp_path / manifest.members[0].path / "manifest.json"
    write(path, dataclasses.replace(read_task(path.parent), truncated={"targets": 1}))
    assert "truncates 25.0% of the targets, at most 5.0% are allowed" in reason(request(), tmp_path)
    assert find(request(max_truncated_targets=0.25), tmp_path) == manifest


def test_an_export_without_a_member_is_used_only_when_members_may_lack_the_split(tmp_path):
    skipped = {"b": "has no split 'train', only test"}
    manifest = dataclasses.replace(write_mixture(tmp_path, request(), {"a": 4}), skipped=skipped)
    write(request().manifest_path(tmp_path), manifest)
    assert find(request(), tmp_path) == manifest
    assert reason(request(on_missing_split="error"), tmp_path) == "b of 'toys', split 'train' lack the split"
    write(request().manifest_path(tmp_path), dataclasses.replace(manifest, members=()))
    assert reason(request(), tmp_path) == "b of 'toys', split 'train' lack the split"
    assert find(request(on_missing_split="empty"), tmp_path).members == ()


def test_what_exists_is_not_exported_again(tmp_path):
    for use_cached in (True, False, "auto"):
        write_mixture(tmp_path, request(), {"a": 2})
        assert ensure(request(), export_dir=tmp_path, use_cached=use_cached).num_examples == 2


def test_one_call_of_the_exporter_makes_all_that_is_missing_under_one_set_of_definitions(tmp_path):
    exporter = Exporter()
    write_mixture(tmp_path, request(), {"a": 1})
    asked = [request(), request(split="validation"), request(split="test"), request(split="x", vocabulary="bytes")]
    answers = ensure_all(asked, export_dir=tmp_path, use_cached="auto", exporter=exporter)
    assert [a.request for a in answers] == asked
    assert exporter.calls == [["validation", "test"], ["x"]]


def test_an_exporter_that_writes_nothing_is_noticed(tmp_path):
    with pytest.raises(ValueError, match=r"Exported, but 'toys', split 'train' has not been exported"):
        ensure(request(), export_dir=tmp_path, exporter=lambda requests, export_dir: None)


def test_a_run_that_may_not_export_names_the_fields_that_differ_from_the_nearest(tmp_path):
    write_mixture(tmp_path, request(lengths={"inputs": 64, "targets": 16}, vocabulary="bytes"), {"a": 1})
    write_mixture(tmp_path, request(lengths={"inputs": 64, "targets": 4}), {"a": 1})
    with pytest.raises(ValueError) as caught:
        ensure(request(), export_dir=tmp_path, use_cached=True)
    assert "the nearest differs in lengths.inputs: got 64, expected 8 (got: the export's" in str(caught.value)
    assert "flan-jax export" in str(caught.value)


def test_a_run_that_may_not_export_is_shown_the_existing_exports(tmp_path):
    with pytest.raises(ValueError, match=r"It holds no export\."):
        ensure(request(), export_dir=tmp_path, use_cached=True)
    write_mixture(tmp_path, request(), {"a": 1})
    with pytest.raises(ValueError, match=r"Did you mean 'toys'\? It holds toys\."):
        ensure(request(name="toy"), export_dir=tmp_path, use_cached=True)


def test_a_run_that_may_not_export_is_shown_which_template_changed(tmp_path):
    rows = tmp_path / "my_templates.py"
    rows.write_text("1")
    write_mixture(tmp_path, request(), {"a": 1}, files=[(str(rows), "module")])
    rows.write_text("2")
    with pytest.raises(ValueError, match=r"USE_CACHED_TASKS is True and .* out of date: .*my_templates.py has changed"):
        ensure(request(), export_dir=tmp_path, use_cached=True)


def test_a_moved_export_is_used_without_its_modules(tmp_path):
    module = tmp_path / "mine.py"
    module.write_text("1")
    asked = request(module=str(module))
    write_mixture(tmp_path, asked, {"a": 1}, files=[(str(module), "module")])
    module.unlink()
    assert ensure(asked, export_dir=tmp_path, use_cached=True).num_examples == 1
    assert "is gone" in reason(asked, tmp_path)


def test_finding_and_reading_an_export_imports_no_tensorflow(tmp_path):
    write_mixture(tmp_path, request(), {"a": 2})
    code = f"""
import sys
from pathlib import Path
from flan_jax.data import exports, source
from flan_jax.data.manifest import Request, write
manifest = exports.find(Request(name="toys", lengths={LENGTHS!r}), Path({str(tmp_path)!r}))
(task,) = source.open_members(manifest, export_dir=Path({str(tmp_path)!r}))
assert len(task.read([1, 0])) == 2
loaded = {{"tensorflow", "seqio", "jax"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
