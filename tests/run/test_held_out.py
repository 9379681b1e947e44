"""The training mixture is compared with the held-out suite, by manifests only."""

import dataclasses
import json

import pytest

from flan_jax.data.manifest import MANIFEST_NAME, Request, read_task
from flan_jax.data.source import open_members
from flan_jax.evaluation.suite import EvaluationPlan
from flan_jax.files import json_with_digest
from flan_jax.run.held_out import require_held_out
from tests.data.export_made_by_hand import LENGTHS, write_mixture

FACTS = {
    "anli": {"cluster": "entailment", "corpora": ["anli", "snli"]},
    "cb": {"cluster": "entailment", "corpora": ["cb"]},
    "premises": {"cluster": "writing", "corpora": ["snli"]},
    "shows": {"cluster": "talking", "exemplar_corpora": ["anli"]},
    "sums": {"cluster": "numbers"},
}


@pytest.fixture
def mixture(tmp_path):
    def write(name, *tasks, hold_out=None):
        manifest = write_mixture(tmp_path, Request(name=name, lengths=LENGTHS), dict.fromkeys(tasks, 2))
        for member in manifest.members:
            path = tmp_path / member.path / MANIFEST_NAME
            content = json.loads(path.read_text())
            del content["sha256"]
            path.write_text(json_with_digest({**content, "metadata": {**content["metadata"], **FACTS[member.task]}}))
        return dataclasses.replace(manifest, hold_out=hold_out or {})

    return write


@pytest.fixture
def check(mixture, tmp_path):
    def run(*training, label="held_out", allow_leak=(), hold_out=None):
        manifest = mixture("mine", *training, hold_out=hold_out)
        return require_held_out(
            open_members(manifest, export_dir=tmp_path),
            EvaluationPlan(suites={label: ("tested",), "others": ("premises",)}),
            {"tested": open_members(mixture("tested", "anli"), export_dir=tmp_path)},
            mixture=manifest,
            allow_leak=allow_leak,
        )

    return run


def test_facts_are_read_from_manifests(mixture, tmp_path):
    manifest = mixture("mine", "shows", "sums")
    manifests = [read_task(tmp_path / member.path) for member in manifest.members]
    facts = [manifest.metadata.facts(manifest.task) for manifest in manifests]
    assert [(f.task, f.cluster, f.corpora, f.exemplar_corpora) for f in facts] == [
        ("shows", "talking", (), ("anli",)), ("sums", "numbers", (), ())
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("training", "leak", "way"),
    [
        ("cb", "'cb' is of the held-out cluster 'entailment' (of 'anli')", ["entailment"]),
        ("premises", "'premises' is made from the held-out corpus 'snli' (of 'anli')", ["snli"]),
        ("shows", "'shows' shows exemplars from the held-out corpus 'anli' (of 'anli')", ["anli"]),
        ("anli", "'anli' is itself held out", ["entailment", "anli", "snli"]),
    ],
)
def test_every_way_of_leaking_stops_the_run_and_is_allowed_by_name_only(check, training, leak, way):
    with pytest.raises(ValueError) as stopped:
        check("sums", training)
    text = str(stopped.value)
    assert text.startswith("'mine' trains on what the suite 'held_out' (tested) holds out: ") and leak in text
    assert f"run_config.RunConfig.allow_leak = {way}; run.json records it." in text
    written = check("sums", training, allow_leak=way)
    assert written["tasks"] == ["tested"] and written["allow_leak"] == way and leak in written["allowed"]
    assert check("sums", training, allow_leak=[training])["allowed"] == written["allowed"]
    with pytest.raises(ValueError, match="trains on what"):
        check("sums", training, allow_leak=["sums", "numbers"])


def test_a_run_without_leaks_records_what_it_holds_out(check):
    assert check("sums") == {"clusters": [], "corpora": [], "tasks": ["tested"], "allow_leak": [], "allowed": []}


def test_suites_with_other_labels_hold_nothing_out(check):
    assert check("cb", "premises", label="trained") is None


def test_leaks_allowed_by_the_mixture_are_allowed(check):
    defined = {"allow_leak": ["entailment"], "allowed": []}
    assert check("cb", hold_out=defined)["allowed"] == ["'cb' is of the held-out cluster 'entailment' (of 'anli')"]
    with pytest.raises(ValueError, match="'premises'"):
        check("cb", "premises", hold_out=defined)


def test_a_run_without_evaluation_is_not_checked(mixture):
    manifest = mixture("mine", "cb")
    assert require_held_out((), None, {}, mixture=manifest, allow_leak=["x"]) is None


def test_clusters_of_tasks_that_the_mixture_holds_out_by_name_may_be_trained_on(check):
    for named in ("anli", "tested"):
        check("cb", "sums", hold_out={"tasks": [named]})
    with pytest.raises(ValueError, match="'cb' is of the held-out cluster 'entailment'"):
        check("cb", hold_out={"tasks": ["sums"]})
    with pytest.raises(ValueError, match="'premises' is made from the held-out corpus 'snli'"):
        check("premises", hold_out={"tasks": ["anli"]})
