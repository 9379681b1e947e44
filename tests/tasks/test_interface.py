"""Another kind of task is one more class: exporting, describing, mixing, linting and hold-out need no other change."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from flan_jax.data.holdout import HoldOut
from flan_jax.data.manifest import Request, read_task
from flan_jax.data.record import encode_record
from flan_jax.data.source import open_members
from flan_jax.tasks.interface import (
    EMPTY_INPUTS,
    Encoded,
    Finding,
    MissingSource,
    Preview,
    Rendering,
    Task,
    TaskMetadata,
)
from flan_jax.tasks.pretraining.task import PretrainingTask
from flan_jax.tasks.sources.file_sources import InMemorySource
from flan_jax.vocab import ByteVocabulary

pytestmark = pytest.mark.tensorflow
LENGTHS = {"inputs": 16, "targets": 6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doubling:
    """Counts to `size`, and asks for the double of each number; needs no file and no template."""

    name: str
    size: int
    is_here: bool = True
    splits = ("train", "validation")
    vocabulary = ByteVocabulary(extra_ids=0)
    vocabulary_files = ()
    num_templates = 0
    thread_safe = True
    joins_rows = False
    metadata = TaskMetadata(
        cluster="doubling", metrics=("exact_match",), postprocessor=None, evaluation="generate", license="CC0",
        corpora=("numbers",),
    )  # fmt: skip

    def to_seqio(self):
        import seqio
        import tensorflow as tf

        texts = [self.texts(number) for number in range(self.size)]

        def dataset(split, shuffle_files=False, seed=None):
            del split, shuffle_files, seed
            return tf.data.Dataset.from_tensor_slices(
                {"inputs": [i for i, _ in texts], "targets": [t for _, t in texts]}
            )

        feature = seqio.Feature(vocabulary=seqio.ByteVocabulary(extra_ids=0))
        return seqio.TaskRegistry.add(
            self.name,
            source=seqio.FunctionDataSource(dataset, splits=self.splits),
            preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            output_features={"inputs": feature, "targets": feature},
        )

    def identity(self, split, *, module_digests):
        return {"kind": "doubling", "size": self.size}

    def files(self, split):
        return ()

    def missing_source(self, split):
        return None if self.is_here else MissingSource(reason="numbers have not arrived")

    def examples(self, split, *, lengths, dropped):
        dropped["odd"] += self.size // 2
        return ((number, *self.texts(number)) for number in range(0, self.size, 2))

    def encoder(self, split, *, lengths):
        def encode(chunk):
            kept = [(i, t) for _, i, t in chunk if i != "0"]
            pairs = [tuple([*self.vocabulary.encode(text), 1] for text in pair) for pair in kept]
            return Encoded(
                records=[encode_record(pair, None if split == "train" else {"references": []}) for pair in pairs],
                lengths=np.array([[len(i), len(t)] for i, t in pairs], np.int32).reshape(-1, 2),
                truncated=Counter(),
                dropped=Counter({EMPTY_INPUTS: len(chunk) - len(kept)}),
            )

        return encode

    def num_examples(self, split, *, lengths):
        return (self.size + 1) // 2 - 1

    def preview(self, split, *, index, lengths, num_examples):
        inputs, targets = self.texts(index)
        encoded = self.encoder(split, lengths=lengths)([(index, inputs, targets)])
        shown = Rendering(inputs=inputs, targets=targets, ids=encoded.ids()[0], notes=encoded.notes(lengths))
        return Preview(place=f"number {index}", raw=index, row=index, renderings=(shown,), examples=encoded.ids())

    def lint(self, *, lengths):
        if self.size < 4:
            yield Finding(where=self.name, rule="few numbers", severity="note", detail=f"only {self.size}")

    @staticmethod
    def texts(number):
        return str(number), str(2 * number)


@pytest.fixture
def doubling(registries):
    registries.register(Doubling(name="doubling", size=9))
    return registries


def test_it_is_exported_and_read_as_any_other(doubling, sums, tmp_path):
    from flan_jax.tasks.exporting.export import export_mixture

    doubling.register_mixture("both", ["doubling", "sums"])
    for split in ("train", "validation"):
        manifest = export_mixture(Request(name="both", split=split, lengths=LENGTHS), export_dir=tmp_path)
        assert [member.task for member in manifest.members] == ["doubling", "sums"]
    manifest = export_mixture(Request(name="both", lengths=LENGTHS), export_dir=tmp_path)
    made = read_task(tmp_path / manifest.members[0].path)
    assert (made.metadata.cluster, made.metadata.metrics, made.metadata.license, made.metadata.corpora) == (
        "doubling",
        ("exact_match",),
        "CC0",
        ("numbers",),
    )
    assert (made.num_examples, made.rows_read, made.dropped) == (4, 9, {EMPTY_INPUTS: 1, "odd": 4})
    rows = open_members(manifest, export_dir=tmp_path)[0]
    texts = [tuple(map(Doubling.vocabulary.decode, pair)) for pair in rows.read(range(len(rows)))]
    assert texts == [("2", "4"), ("4", "8"), ("6", "12"), ("8", "16")]


def test_a_source_that_is_not_here_is_reported_and_may_be_left_out(doubling, registries, tmp_path):
    from flan_jax.tasks.exporting.export import export_mixture

    registries.register(Doubling(name="later", size=9, is_here=False))
    registries.register_mixture("some", ["doubling", "later"])
    with pytest.raises(FileNotFoundError, match=r"\(later\): numbers have not arrived"):
        export_mixture(Request(name="some", lengths=LENGTHS), export_dir=tmp_path)
    lenient = Request(name="some", lengths=LENGTHS, on_missing_source="skip")
    assert export_mixture(lenient, export_dir=tmp_path).skipped == {
        "later": "is not available: numbers have not arrived"
    }


def test_it_is_described_with_its_mixture(doubling, sums):
    from flan_jax.tasks import describe, mixture_description

    doubling.register_mixture("both", [("doubling", 1), ("sums", 3)])
    ((line,), _) = describe.all_tasks("doubling")
    assert (line["cluster"], line["splits"], line["templates"]) == ("doubling", ["train", "validation"], 0)
    shown = describe.task_example("doubling", split=None, index=4, lengths=LENGTHS, num_packed=1)
    assert (shown["raw"], shown["renderings"][0]["targets"], shown["packed"]["examples"]) == (4, "8", 1)
    assert shown["renderings"][0]["tokens"]["inputs"]["pieces"] == ["4", "</s>"]
    found = mixture_description.mixture("both", split="train", steps=1, batch_size=1, lengths=LENGTHS, export_dir=None)
    assert [(m["name"], m["examples"], m["share_percent"]) for m in found["members"]] == [
        ("doubling", 4, 25.0),
        ("sums", 3, 75.0),
    ]


def test_it_is_linted(doubling, registries):
    from flan_jax.tasks.lint import lint

    registries.register(Doubling(name="short", size=2))
    findings, tasks = lint("short", lengths=LENGTHS)
    assert [(f.where, f.rule) for f in findings] == [("short", "few numbers")] and tasks == 1
    assert lint("doubling", lengths=LENGTHS) == ([], 1)


def test_hold_out_goes_by_its_metadata(doubling):
    for hold_out in (HoldOut(clusters=("doubling",)), HoldOut(corpora=("numbers",)), HoldOut(tasks=("doubling",))):
        with pytest.raises(ValueError, match="Mixture 'leaking' trains on what it holds out: 'doubling'"):
            doubling.register_mixture("leaking", ["doubling"], hold_out=hold_out)


def test_every_kind_has_the_members_of_the_interface(doubling, sums, plain):
    source = InMemorySource(data={"train": [{"text": "some words"}]})
    doubling.register(PretrainingTask(name="documents", source=source), vocabulary="embedded")
    tasks = [doubling.resolve(name) for name in ("doubling", "sums", "plain", "documents")]
    assert [type(task).__name__ for task in tasks] == ["Doubling", "RenderedTask", "ExternalTask", "DocumentTask"]
    members = {name for name in vars(Task) if not name.startswith("_")} | set(Task.__annotations__)
    for task in tasks:
        assert not [member for member in members if not hasattr(task, member)], task
