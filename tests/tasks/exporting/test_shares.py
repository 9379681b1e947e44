"""Stated shares are the shares that are drawn."""

import numpy as np
import pytest

from flan_jax.data.manifest import Request, read_mixture
from flan_jax.data.mixture import Mixture
from flan_jax.data.source import open_members
from flan_jax.tasks import members
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.exporting import export
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.templates.render import Template
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 64, "targets": 64}
VOCABULARY = ByteVocabulary(extra_ids=20)


def task(name, texts, *, splits=("train",)):
    rows = [{"q": text, "a": str(len(text))} for text in texts]
    source = InMemorySource(data=dict.fromkeys(splits, rows))
    return TemplatedTask(name=name, source=source, cluster="toys", templates=(Template(inputs="{q}", targets="{a}"),))


@pytest.fixture
def declared(registries):
    """Tasks of short examples, `short` of 3 and `longer` of 9 tokens of input, and `wiki` of 60-odd."""
    registries.register(task("short", ["ab"] * 40, splits=("train", "validation")), vocabulary=VOCABULARY)
    registries.register(task("longer", ["abcdefgh"] * 20), vocabulary=VOCABULARY)
    texts = [{"text": f"the document with number {i} says this, and then " * (1 + i % 7)} for i in range(90)]
    wiki = PretrainingTask(name="wiki", source=InMemorySource(data={"train": texts}))
    registries.register(wiki, vocabulary=VOCABULARY)
    registries.register_mixture("tuned", ["short", "longer"])
    return registries


def drawn(manifest, export_dir, *, num_blocks=1024, lengths=LENGTHS):
    """Examples and tokens of each task in what a run draws."""
    tasks = dict(zip((m.task for m in manifest.members), open_members(manifest, export_dir=export_dir), strict=True))
    rates = {member.task: member.rate for member in manifest.members}
    sizes = {name: len(task) for name, task in tasks.items()}
    mixture = Mixture(sizes=sizes, rates=rates, seed=0)
    examples, tokens = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)
    for block in map(mixture.block, range(num_blocks)):
        for number, name in enumerate(mixture.names):
            rows = block.rows[block.task_ids == number]
            examples[name] += len(rows)
            tokens[name] += int(tasks[name].lengths[rows].sum())
    return examples, tokens


def part(of, totals):
    return totals[of] / sum(totals.values())


def test_a_share_of_examples_is_drawn(declared, tmp_path):
    declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.05, unit="examples")
    manifest = export.export_mixture(Request(name="m", lengths=LENGTHS), export_dir=tmp_path)
    counts, _ = drawn(manifest, tmp_path)
    assert part("wiki", counts) == pytest.approx(0.05, rel=0.01)
    assert counts["short"] / counts["longer"] == pytest.approx(2, rel=0.01)  # The rest keeps its proportions.


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_of_tokens_is_drawn(declared, tmp_path, share):
    declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=share, unit="tokens")
    manifest = export.export_mixture(Request(name="m", lengths=LENGTHS), export_dir=tmp_path)
    counts, tokens = drawn(manifest, tmp_path)
    assert part("wiki", tokens) == pytest.approx(share, rel=0.01)
    assert part("wiki", counts) < share / 2
    assert counts["short"] / counts["longer"] == pytest.approx(2, rel=0.01)


def test_the_manifest_has_stated_and_realized_shares(declared, tmp_path):
    declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.05, unit="tokens")
    request = Request(name="m", lengths=LENGTHS)
    export.export_mixture(request, export_dir=tmp_path)
    tuned, wiki = read_mixture(request.manifest_path(tmp_path)).shares
    assert (tuned.mixture, tuned.member, tuned.unit, tuned.share) == ("m", "tuned", "tokens", 0.95)
    assert (wiki.member, wiki.of_tokens) == ("wiki", pytest.approx(0.05))
    assert wiki.of_examples == pytest.approx(1 - tuned.of_examples) and wiki.of_examples < 0.02


def test_shares_may_be_stated_within_one_another(declared, tmp_path):
    declared.register_mixture_with_share("inner", main="short", share_of="longer", share=0.25, unit="examples")
    declared.register_mixture_with_share("m", main="inner", share_of="wiki", share=0.1, unit="tokens")
    manifest = export.export_mixture(Request(name="m", lengths=LENGTHS), export_dir=tmp_path)
    assert [(s.mixture, s.member) for s in manifest.shares] == [
        ("m", "inner"), ("m", "wiki"), ("inner", "short"), ("inner", "longer"),
    ]  # fmt: skip
    of_tokens = {s.member: s.of_tokens for s in manifest.shares if s.mixture == "m"}
    of_examples = {s.member: s.of_examples for s in manifest.shares if s.mixture == "inner"}
    assert of_tokens == pytest.approx({"inner": 0.9, "wiki": 0.1})
    assert of_examples == pytest.approx({"short": 0.75, "longer": 0.25})


def test_a_member_that_loses_tasks_keeps_its_share(declared):
    declared.register_mixture("numbers", [("short", 1), ("longer", 3)])
    made = declared.register_mixture_with_share("m", main="numbers", share_of="wiki", share=0.2, unit="examples")
    found = members.rates(made, counts={"short": 40, "wiki": 9}, absent=["longer"])
    assert {name: rate.rate for name, rate in found.items()} == pytest.approx({"short": 0.8, "wiki": 0.2})
    # No rows of the split, which SeqIO would still count in the sum.
    assert members.rates(made, counts={"short": 40, "wiki": 9})["short"].rate == pytest.approx(0.8)


def test_without_a_member_the_other_is_alone(declared, tmp_path):
    declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.2, unit="tokens")
    manifest = export.export_mixture(Request(name="m", split="validation", lengths=LENGTHS), export_dir=tmp_path)
    assert [m.task for m in manifest.members] == ["short"]
    assert [(s.member, s.of_tokens) for s in manifest.shares] == [("tuned", 1.0)]


def test_seqio_itself_draws_the_share_by_examples(declared):
    made = declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.05, unit="tokens")
    rates = {t.name: made.get_rate(t) for t in made.tasks}
    assert rates["wiki"] == pytest.approx(0.05)
    assert rates["short"] + rates["longer"] == pytest.approx(0.95)


def test_a_share_of_tokens_needs_an_export_to_be_described(declared, tmp_path):
    from flan_jax.tasks import mixture_description

    declared.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.05, unit="tokens")
    settings = {"split": "train", "steps": 10, "batch_size": 3, "lengths": LENGTHS}
    with pytest.raises(ValueError, match="'m' states shares of tokens, and the tokens of 'longer' are not known"):
        mixture_description.mixture("m", export_dir=None, **settings)
    export.export_mixture(Request(name="m", lengths=LENGTHS), export_dir=tmp_path)
    found = mixture_description.mixture("m", export_dir=tmp_path, **settings)
    assert [(s["member"], s["of_tokens"]) for s in found["shares"]] == [
        ("tuned", pytest.approx(0.95)), ("wiki", pytest.approx(0.05)),
    ]  # fmt: skip
    assert {m["name"]: m["cluster"] for m in found["members"]}["wiki"] == "pretraining"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"share": 0},
            ValueError,
            "Mixture 'm', the share of 'wiki': A share of tokens must be above 0 and below 1; got 0",
        ),
        ({"share": 5}, ValueError, "must be above 0 and below 1; got 5"),
        (
            {"unit": "token"},
            ValueError,
            "the unit of a share must be one of examples, tokens; got 'token'. Did you mean 'tokens'",
        ),
        ({"share_of": "wikki"}, KeyError, "Unknown task or mixture 'wikki'. Did you mean 'wiki'"),
        ({"share_of": "short"}, ValueError, "Mixture 'm': 'short' is in 'tuned' and in 'short', so that the share"),
    ],
)
def test_invalid_shares_are_refused(declared, changes, kind, message):
    settings = {"main": "tuned", "share_of": "wiki", "share": 0.05, "unit": "tokens"}
    with pytest.raises(kind, match=message):
        declared.register_mixture_with_share("m", **(settings | changes))


def test_a_stated_share_is_a_number_that_keeps_its_unit():
    import copy
    import pickle

    from flan_jax.data.rates import StatedShare

    share = StatedShare(0.25, unit="tokens")
    assert share == 0.25 and repr(share) == "StatedShare(0.25, unit='tokens')"
    for copied in (copy.deepcopy(share), pickle.loads(pickle.dumps(share))):
        assert (copied, copied.unit) == (0.25, "tokens")
    assert np.isclose(share + 0.5, 0.75)


YAML = """
vocabulary: embedded
tasks:
  ask:
    cluster: toys
    source: jsonl
    splits: {train: rows.jsonl}
    templates:
      - {inputs: "{q}", targets: "{a}"}
      - {inputs: "a question for {a}", targets: "{q}", direction: inverted}
inverted: [ask]
pretraining:
  text: {source: jsonl, splits: {train: rows.jsonl}, field: q, objective: prefix_lm}
mixtures:
  all: {members: {ask: 1, ask_inverted: 0.3}, share: {member: text, share: 0.1, of: tokens}}
  nested: {members: [all]}
"""


def test_a_share_is_stated_in_yaml(registries, tmp_path):
    import json

    rows = [{"q": f"what is {i} and {i} in all?", "a": str(2 * i)} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "my.yaml"
    path.write_text(YAML.replace("  nested: {members: [all]}\n", ""))
    assert registries.register_yaml(path) == ("ask", "text", "ask_inverted", "all_main", "all")
    manifest = export.export_mixture(Request(name="all", lengths=LENGTHS), export_dir=tmp_path)
    _, tokens = drawn(manifest, tmp_path)
    assert part("text", tokens) == pytest.approx(0.1, rel=0.01)
    rates = {member.task: member.rate for member in manifest.members}
    assert rates["ask_inverted"] / rates["ask"] == pytest.approx(0.3)


def test_a_yaml_file_that_fails_leaves_nothing_behind(registries, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "a": "b"}')
    path = tmp_path / "my.yaml"
    path.write_text(YAML.replace("member: text", "member: ask"))
    with pytest.raises(
        ValueError, match=r"my.yaml, line 15: mixtures.all: Mixture 'all': 'ask' is in 'all_main' and in 'ask'"
    ):
        registries.register_yaml(path)
    assert registries.defined_names() == set()


def test_a_mixture_alone_may_be_given_a_share_of_something(registries, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "a": "b"}')
    path = tmp_path / "my.yaml"
    text = YAML.partition("mixtures:")[0]
    path.write_text(
        text + "mixtures: {m: {members: [ask]}, n: {members: [m], share: {member: text, share: 0.1, of: examples}}}"
    )
    assert registries.register_yaml(path)[-3:] == ("m", "n_main", "n")


@pytest.mark.shared_data
@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_shares_hold_on_real_text(registries, tmp_path, shared_data, unit):
    from flan_jax.tasks.sources.file_sources import TsvSource, WikiSource

    reasoned = Template(inputs="{question}", targets="{rationale} So the answer is {answer}.")
    for name in ("gsm8k", "qasc"):
        files = {"train": shared_data / f"flan_cot/{name}_train.tsv.gz"}
        source = TsvSource(files=files, columns=("question", "answer", "rationale"))
        registries.register(
            TemplatedTask(name=name, source=source, cluster="cot", templates=(reasoned,)), vocabulary="embedded"
        )
    wiki = WikiSource(files={"train": shared_data / "wiki_pretrain/wiki_00.gz"})
    registries.register(PretrainingTask(name="wiki", source=wiki), vocabulary="embedded")
    registries.register_mixture("tuned", ["gsm8k", "qasc"])
    registries.register_mixture_with_share("m", main="tuned", share_of="wiki", share=0.05, unit=unit)
    lengths = {"inputs": 512, "targets": 384}
    request = Request(name="m", lengths=lengths)
    manifest = export.export_mixture(request, export_dir=tmp_path)
    examples, tokens = drawn(manifest, tmp_path, lengths=lengths)
    assert part("wiki", examples if unit == "examples" else tokens) == pytest.approx(0.05, rel=0.01)
    stated = {share.member: share for share in manifest.shares}["wiki"]
    assert (stated.of_examples, stated.of_tokens) == pytest.approx(
        (part("wiki", examples), part("wiki", tokens)), rel=0.01
    )
