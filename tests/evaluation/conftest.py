"""Exported tasks in memory: what evaluation needs of an export, without files."""

import dataclasses

import numpy as np
import pytest

from flan_jax.data.manifest import TaskManifest, TaskMetadata, VocabularyRef
from flan_jax.decoding.hypotheses import Hypothesis
from flan_jax.vocab import ByteVocabulary

VOCABULARY = ByteVocabulary()


def ids(text):
    return np.array([*VOCABULARY.encode(text), VOCABULARY.eos_id], np.int32)


@dataclasses.dataclass
class InMemoryTask:
    manifest: TaskManifest
    pairs: list
    metas: list

    @property
    def lengths(self):
        return np.array([(len(i), len(t)) for i, t in self.pairs], np.int32).reshape(-1, 2)

    def __len__(self):
        return len(self.pairs)

    def read(self, indices):
        return [self.pairs[i] for i in indices]

    def read_meta(self, indices):
        return [self.metas[i] for i in indices]


def make_task(rows, *, name="toy", evaluation="generate", metrics=("accuracy",), postprocessor=None, cluster="toys"):
    """A task of rows {"inputs", "targets"} and what else their meta should say; `meta=None` leaves it out."""
    pairs, metas = [], []
    for number, row in enumerate(rows):
        pairs.append((ids(row["inputs"]), ids(row["targets"])))
        options = row.get("options", [])
        meta = {
            "references": [row["targets"]],
            "option_tokens": [ids(option).tolist() for option in options],
            "gold": options.index(row["targets"]) if row["targets"] in options else -1,
            "template": 0,
            "row": number,
            "options": options,
        }
        metas.append({} if "meta" in row else meta | row)
    manifest = TaskManifest(
        task=name,
        split="validation",
        metadata=TaskMetadata(
            cluster=cluster, metrics=metrics, postprocessor=postprocessor, evaluation=evaluation, license=""
        ),
        fingerprint="f" * 12,
        identity={},
        lengths={"inputs": 64, "targets": 64},
        vocabulary=VocabularyRef(kind="bytes", digest="d", size=VOCABULARY.size, eos_id=VOCABULARY.eos_id),
        num_examples=len(rows),
        num_shards=1,
        shard_examples=(len(rows),),
        shard_bytes=(0,),
        tokens={},
        rows_read=len(rows),
        dropped={},
        truncated={},
    )
    return InMemoryTask(manifest, pairs, metas)


class Answering:
    """A model that answers each input by a function of its text, in an order of its own, and notes what it decodes."""

    def __init__(self, answer, *, length=64):
        self.answer, self.length, self.decoded = answer, length, []

    def __call__(self, rows):
        for number, inputs in sorted(rows, key=lambda row: -len(row[1])):
            self.decoded.append(number)
            answers = self.answer(VOCABULARY.decode(inputs))
            yield number, tuple(map(self.hypothesis, [answers] if isinstance(answers, str) else answers))

    def hypothesis(self, text):
        tokens = ids(text)[: self.length]
        ended = bool(tokens[-1] == VOCABULARY.eos_id)
        return Hypothesis(tokens=tokens, score=-float(len(tokens)), beam_score=0.0, ended=ended)


@pytest.fixture
def vocabulary():
    return VOCABULARY


@pytest.fixture
def answering():
    return Answering


@dataclasses.dataclass
class LogProbs:
    log_probs: np.ndarray


@pytest.fixture
def scoring():
    """A model that scores (input, option) texts by a function, the end of sequence by another; remembers the rows."""

    def make(score, *, eos=lambda option: 0.0):
        def score_rows(rows):
            for number, inputs, options in rows:
                score_rows.rows.append((number, inputs, options))
                text, texts = VOCABULARY.decode(inputs), [VOCABULARY.decode(option) for option in options]
                parts = [(score(text, one) - eos(one), eos(one)) for one in texts]
                yield number, [LogProbs(np.array(part, np.float32)) for part in parts]

        score_rows.rows = []
        return score_rows

    return make


@pytest.fixture
def task():
    return make_task
