"""What is registered, and what becomes of it, as plain dictionaries: for people to look at and for programs to read.

Nothing is exported or written. How the dictionaries are shown is left to `commands.show`.
"""

import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from flan_jax.data import packing
from flan_jax.data.features import packed_batch
from flan_jax.data.manifest import Lengths
from flan_jax.data.record import decode_features
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.tasks import external, registry, rendering, yaml_file
from flan_jax.tasks.declare import TemplatedTask
from flan_jax.tasks.exporting.tokens import Tokeniser
from flan_jax.tasks.sources.rows import Record, plain_record
from flan_jax.tasks.vocabularies import from_seqio
from flan_jax.templates.render import Rendered
from flan_jax.vocab import Vocabulary

Description = dict[str, Any]
DEFAULT_LENGTHS: Lengths = MappingProxyType({"inputs": 512, "targets": 128})
"""Token limits that examples are shown under when nobody says which."""


def all_tasks(pattern: str | None = None) -> list[Description]:
    """Describes tasks in a line each, those of others too, sorted by name.

    Args:
      pattern: a part of the names, or a pattern with `*`; what families declare under such a name is registered. None
        for all that is registered already.
    """
    lines = []
    for name in _matching(pattern):
        provider = registry.mixture_or_task(name)
        if _is_mixture(provider):
            continue
        record, declared = registry.templated(name), registry.templated(name) or registry.pretraining(name)
        lines.append(
            {
                "name": name,
                "cluster": declared.cluster if declared else "",
                "splits": sorted(provider.splits),
                "templates": len(record.templates) if record else 0,
                "evaluation": record.evaluation if record else "generate" if declared else "foreign",
                "metrics": list(record.metrics) if record else [_metric_name(fn) for fn in provider.metric_fns],
                "licence": declared.licence if declared else "",
            }
        )
    return lines


def all_mixtures(pattern: str | None = None) -> list[Description]:
    """Describes mixtures in a line each, sorted by name; see `all_tasks`."""
    providers = [registry.mixture_or_task(name) for name in _matching(pattern)]
    return [
        {
            "name": mixture.name,
            "members": len(mixture.rate_per_task_name),
            "tasks": len(mixture.tasks),
            "splits": sorted({split for task in mixture.tasks for split in task.splits}),
        }
        for mixture in providers
        if _is_mixture(mixture)
    ]


def _matching(pattern: str | None) -> list[str]:
    if pattern is None:
        return sorted(registry.defined_names())
    whole = pattern if "*" in pattern else f"*{pattern}*"
    return [name for name in registry.names() if fnmatch.fnmatchcase(name, whole)]


def task_example(name: str, *, split: str | None, index: int, lengths: Lengths, num_packed: int) -> Description:
    """Follows one row of a task to the features of a packed row.

    Args:
      name: a registered task.
      split: one of its splits; None for "train", or the first it has.
      index: position among the rows of the split.
      lengths: token limits.
      num_packed: how many examples, from this one on, to pack; those of the first packed row are shown.

    Returns:
      "raw" (the source's row), "row" (after the normaliser), "renderings" (one for each template: texts and tokens) and
      "packed" (features of one row). A task registered with plain SeqIO has one rendering, its own.

    Raises:
      UnknownNameError: no such task or split.
      UserError: the row cannot become an example, or there are not so many.
    """
    task, record = registry.task(name), registry.templated(name)
    chosen = split or ("train" if "train" in task.splits else sorted(task.splits)[0])
    if record is None:
        shown = _foreign_example(task, chosen, index=index, lengths=lengths, num_packed=num_packed)
    else:
        shown = _templated_example(
            record, chosen, vocabulary=vocabulary_of(task), index=index, lengths=lengths, num_packed=num_packed
        )
    return {"task": name, "split": chosen, "index": index, "lengths": dict(lengths), **shown}


def user_file(path: Path | str, *, num_rows: int) -> Description:
    """Renders the first rows of each task in a user's YAML file under each of its templates. Registers nothing.

    Args:
      path: of the file; see `yaml_file` for its schema.
      num_rows: how many rows of each task.

    Raises:
      MissingFileError, UnknownNameError, UserError: what is wrong with the file, its templates or its rows.
    """
    tasks = []
    for task in yaml_file.read_yaml(path).tasks:
        split = "train" if "train" in task.source.splits else sorted(task.source.splits)[0]
        # Refuses what an export would refuse, and says how many rows there are to show.
        usable = sum(1 for _ in itertools.islice(rendering.usable_rows(task, split), num_rows))
        rows = []
        for index in range(usable):
            preview = rendering.preview(task, split, index=index)
            renderings = [
                {**_template(task, number), **_texts(rendered)} for number, rendered in preview.rendered.items()
            ]
            rows.append({"place": preview.place, "raw": preview.raw, "renderings": renderings})
        tasks.append({"task": task.name, "cluster": task.cluster, "split": split, "rows": rows})
    return {"file": str(path), "tasks": tasks}


def vocabulary_of(task: Any) -> Vocabulary:
    """Returns the vocabulary that a templated task was registered with, as ours."""
    vocabulary = from_seqio(task.output_features["inputs"].vocabulary)
    assert vocabulary is not None, "templated tasks are registered with vocabularies of ours"
    return vocabulary


def _templated_example(
    record: TemplatedTask, split: str, *, vocabulary: Vocabulary, index: int, lengths: Lengths, num_packed: int
) -> Description:
    preview = rendering.preview(record, split, index=index, count_tokens=vocabulary.count)
    tokeniser = Tokeniser(vocabulary=vocabulary, lengths=lengths, ends_inputs=record.ends_inputs)
    renderings = []
    for number, rendered in preview.rendered.items():
        ids, notes = _encoded(tokeniser, [rendering.RenderedRow(index, rendered, number)])
        tokens = {f: _spelled(i, vocabulary) for f, i in zip(external.FEATURES, ids[0], strict=True)} if ids else {}
        renderings.append({**_template(record, number), **_texts(rendered), "tokens": tokens, "notes": notes})
    rest = (
        example
        for example in rendering.iter_rendered(record, split, count_tokens=vocabulary.count)
        if example.row >= index
    )
    packed, _ = _encoded(tokeniser, list(itertools.islice(rest, num_packed)))
    return {
        "place": preview.place,
        "raw": preview.raw,
        "row": preview.row,
        "renderings": renderings,
        "packed": _packed(packed, lengths),
    }


def _encoded(
    tokeniser: Tokeniser, rows: Sequence[rendering.RenderedRow]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Ids as an export has them, and in words what it would cut or leave out."""
    encoded = tokeniser.encode(rows)
    notes = [f"{feature} cut to {tokeniser.lengths[feature]} tokens" for feature in sorted(encoded.truncated)]
    notes += [f"left out: {reason}" for reason in sorted(encoded.dropped)]
    features = [decode_features(record) for record in encoded.records]
    return [(inputs, targets) for inputs, targets in features], notes


def _foreign_example(task: Any, split: str, *, index: int, lengths: Lengths, num_packed: int) -> Description:
    external.check_features(task)
    if split not in task.splits:
        raise UnknownNameError(f"Task {task.name!r} has no split {split!r}. Splits: {', '.join(sorted(task.splits))}.")
    numbered = external.examples(task, split, lengths=lengths)
    examples = [example for _, example in itertools.islice(numbered, index, index + num_packed)]
    if not examples:
        raise UserError(f"Task {task.name!r}: the split {split!r} has no example {index}.")
    raw: Mapping[str, Any] = next(
        itertools.islice(task.source.get_dataset(split, shuffle=False).as_numpy_iterator(), index, None), {}
    )
    ids = [tuple(example[f][: lengths[f]] for f in external.FEATURES) for example in examples]
    whole = [len(examples[0][feature]) for feature in external.FEATURES]
    vocabulary = task.output_features["inputs"].vocabulary
    spell = from_seqio(vocabulary) or vocabulary
    rendering_ = {
        "template": 0,
        "name": None,
        "direction": "forward",
        **{feature: _foreign_text(examples[0], feature, vocabulary) for feature in external.FEATURES},
        "options": [],
        "references": [],
        "tokens": {feature: _spelled(i, spell) for feature, i in zip(external.FEATURES, ids[0], strict=True)},
        "notes": [
            f"{feature} cut to {lengths[feature]} tokens"
            for feature, length in zip(external.FEATURES, whole, strict=True)
            if length > lengths[feature]
        ],
    }
    return {
        "place": f"{type(task.source).__name__}: row {index}",
        "raw": _plain(raw),
        "row": _plain(examples[0]),
        "renderings": [rendering_],
        "packed": _packed([(pair[0], pair[1]) for pair in ids], lengths),
    }


def _foreign_text(example: Mapping[str, Any], feature: str, vocabulary: Any) -> str:
    text = example.get(f"{feature}_pretokenized")
    if isinstance(text, (bytes, str)):
        return text.decode(errors="replace") if isinstance(text, bytes) else text
    return vocabulary.decode(example[feature].tolist())


def _metric_name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _template(task: TemplatedTask, number: int) -> Description:
    template = task.templates[number]
    return {"template": number, "name": template.name, "direction": template.direction}


def _texts(rendered: Rendered) -> Description:
    return {
        "inputs": rendered.inputs,
        "targets": rendered.targets,
        "options": list(rendered.options),
        "references": list(rendered.references),
    }


def _spelled(ids: np.ndarray, vocabulary: Any) -> Description:
    """Ids beside what each stands for; a foreign vocabulary can only decode them."""
    spell = vocabulary.piece if isinstance(vocabulary, Vocabulary) else lambda i: vocabulary.decode([i])
    return {"ids": ids.tolist(), "pieces": [spell(i) for i in ids.tolist()]}


def _packed(examples: Sequence[tuple[np.ndarray, np.ndarray]], lengths: Lengths) -> Description:
    """The features of the first row that the examples are packed into."""
    if not examples:
        return {"examples": 0, "features": {}}
    sizes = np.array([[len(inputs), len(targets)] for inputs, targets in examples])
    rows = packing.bin_centred(sizes, (lengths["inputs"], lengths["targets"]))
    first = min(rows, key=lambda row: int(row[0]))
    batch = packed_batch([[examples[i] for i in first]], lengths=lengths)
    return {"examples": len(first), "features": {name: array[0].tolist() for name, array in batch.items()}}


def _plain(example: Mapping[str, Any]) -> Any:
    found = plain_record(example, place="")
    return found.row if isinstance(found, Record) else {name: str(value) for name, value in example.items()}


def _is_mixture(provider: Any) -> bool:
    return hasattr(provider, "rate_per_task_name")
