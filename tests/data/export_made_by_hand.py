"""A tiny export written without SeqIO, for tests that read exports."""

from pathlib import Path

from flan_jax.data import definitions
from flan_jax.data.manifest import Member, MixtureManifest, Request, TaskManifest, TaskMetadata, VocabularyRef, write
from flan_jax.data.record import encode_record
from flan_jax.tasks.exporting import shards

VOCABULARY = VocabularyRef(kind="bytes", digest="d" * 64, size=259, eos_id=1)
LENGTHS = {"inputs": 8, "targets": 4}
PATTERNS = ("flan_jax/templates/**/*.py", "flan_jax/vocab.py")


def encode(chunk):
    """(inputs, targets, meta) triples, as they are."""
    from collections import Counter

    import numpy as np

    return shards.Encoded(
        records=[encode_record(example[:2], example[2] if len(example) > 2 else None) for example in chunk],
        lengths=np.array([[len(e[0]), len(e[1])] for e in chunk], np.int32),
        truncated=Counter(),
        dropped=Counter(),
    )


def task_manifest(totals, *, task="toy", split="train", **changes) -> TaskManifest:
    fields = {
        "task": task,
        "split": split,
        "metadata": TaskMetadata(
            cluster="toys", metrics=("exact_match",), postprocessor=None, evaluation="generate", license=""
        ),
        "fingerprint": "f" * 64,
        "identity": {"task": task},
        "lengths": LENGTHS,
        "vocabulary": VOCABULARY,
        "num_examples": sum(s.examples for s in totals.shards),
        "num_shards": len(totals.shards),
        "shard_examples": tuple(s.examples for s in totals.shards),
        "shard_bytes": tuple(s.bytes for s in totals.shards),
        "tokens": {"inputs": int(totals.lengths[:, 0].sum()), "targets": int(totals.lengths[:, 1].sum())},
        "rows_read": len(totals.lengths),
        "dropped": {},
        "truncated": {"inputs": 0, "targets": 0},
    }
    return TaskManifest(**{**fields, **changes})


def write_task(export_dir: Path, examples, *, task="toy", split="train") -> Path:
    directory = export_dir / "tasks" / f"{task}-ffffffffffff" / split
    totals = shards.build(directory, examples, encode=encode)
    shards.publish(directory, task_manifest(totals, task=task, split=split), lengths=totals.lengths)
    return directory


def write_mixture(export_dir: Path, request: Request, sizes, *, files=()) -> MixtureManifest:
    members = []
    for task, size in sizes.items():
        directory = write_task(export_dir, [([i + 3, 1], [i + 4, 1]) for i in range(size)], task=task)
        path = directory.relative_to(export_dir).as_posix()
        members.append(Member(task=task, rate=float(size), cap=None, path=path, examples=size))
    named = [(path, "package") for path in (*PATTERNS, *definitions.package_files(PATTERNS))]
    manifest = MixtureManifest(
        request=request,
        members=tuple(members),
        skipped={},
        vocabulary=VOCABULARY,
        definition_files=definitions.describe([*named, *files]),
        given_files=definitions.given_files(request),
    )
    write(request.manifest_path(export_dir), manifest)
    return manifest
