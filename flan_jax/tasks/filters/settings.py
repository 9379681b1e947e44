"""Filters as a YAML file writes them down, and the presets of published collections.

    filters:
      - {kind: length, field: instruction, min_words: 4, max_words: 150}
      - {kind: keywords, field: instruction, words: [image, graph]}
      - {kind: near_duplicates, fields: [instruction, input], threshold: 0.8}
      - {kind: contamination, fields: [input], files: [test.jsonl], file_fields: [question], ngram: 13}
      - {preset: self_instruct, files: seeds.jsonl, file_fields: [instruction]}

The keys are the attributes of the classes in `FILTERS`, whose docstrings say what they mean. Texts to compare with are
in `files` (JSON lines, or lists when they end in .json), in `file_fields` of their rows, or in all of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flan_jax.errors import UserError
from flan_jax.names import nearest
from flan_jax.tasks.filters.contamination import Contamination
from flan_jax.tasks.filters.duplicates import Conflicts, Duplicates, NearDuplicates
from flan_jax.tasks.filters.novelty import Novelty
from flan_jax.tasks.filters.row_rules import (
    AtMost,
    Beginnings,
    InputEqualsOutput,
    Keywords,
    Length,
    TargetInInput,
    Truncated,
    Values,
)
from flan_jax.tasks.filters.rule import RowFilter
from flan_jax.tasks.filters.source_texts import SourceTexts, Texts
from flan_jax.tasks.settings import checked
from flan_jax.tasks.settings import texts as texts_in
from flan_jax.tasks.sources.file_sources import FileSource, JsonlSource, JsonSource
from flan_jax.templates.load import require_keys, require_mapping

FILTERS: Mapping[str, type[RowFilter]] = {
    "length": Length,
    "keywords": Keywords,
    "beginnings": Beginnings,
    "truncated": Truncated,
    "input_equals_output": InputEqualsOutput,
    "target_in_input": TargetInInput,
    "values": Values,
    "at_most": AtMost,
    "duplicates": Duplicates,
    "near_duplicates": NearDuplicates,
    "conflicts": Conflicts,
    "novelty": Novelty,
    "contamination": Contamination,
}
UNWANTED_WORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to",
)  # fmt: skip
"""What Self-Instruct takes for a sign that an instruction asks for what a language model cannot do."""


COMPARED_WITH: Mapping[type[RowFilter], str] = {Contamination: "evaluation", Novelty: "against"}
"""The attribute that holds the texts that a rule compares with."""
FILE_KEYS = ("files", "file_fields")


def self_instruct_filters(*, seeds: Texts = ()) -> tuple[RowFilter, ...]:
    """Returns the rules by which Self-Instruct left generated rows out (Wang et al. 2022, arXiv:2212.10560, section 2.2).

    First instructions of 3 words or fewer or more than 150, with certain words, beginnings or characters, or too like
    others; then instances whose output equals the input, is empty or breaks off, instructions whose instances conflict,
    duplicates, and more than 5 instances of an instruction. Where the original draws 5, the first 5 stay.

    Args:
      seeds: the instructions that were there before, which new ones must differ from.
    """
    return (
        Length(field="instruction", min_words=4, max_words=150),
        Keywords(field="instruction", words=UNWANTED_WORDS),
        Beginnings(field="instruction", prefixes=("Write a program",), punctuation=True, non_ascii=True),
        Novelty(field="instruction", threshold=0.7, against=seeds, once=True),
        InputEqualsOutput(),
        Length(field="output", min_words=1),
        Truncated(fields=("input", "output")),
        Conflicts(inputs=("instruction", "input"), outputs=("output",), unless_blank="input", group=("instruction",)),
        Duplicates(fields=("instruction", "input", "output")),
        AtMost(field="instruction", rows=5),
    )


PRESETS: Mapping[str, Callable[[Texts], tuple[RowFilter, ...]]] = {
    "self_instruct": lambda texts: self_instruct_filters(seeds=texts),
}


def parse_filters(value: object, *, base: Path, where: str) -> tuple[RowFilter, ...]:
    """Turns the value of `filters` into rules.

    >>> parse_filters([{"kind": "length", "field": "question", "min_words": 2}], base=Path(), where="my.yaml")
    (Length(field='question', min_words=2, max_words=None),)

    Args:
      value: a list of mappings, each with its kind, and names of presets; or one of these alone.
      base: the folder that relative paths start from.
      where: the place, for messages.

    Raises:
      UserError: an unknown kind, preset or key, or values that cannot be right; names the place.
    """
    entries = value if isinstance(value, list) else [value]
    found: list[RowFilter] = []
    for index, given in enumerate(entries):
        place = f"{where}[{index}]" if isinstance(value, list) else where
        entry = {"preset": given} if isinstance(given, str) else require_mapping(given, where=place)
        found += _preset(entry, base=base, where=place) if "preset" in entry else [_rule(entry, base=base, where=place)]
    return tuple(found)


def _preset(entry: Mapping[str, Any], *, base: Path, where: str) -> tuple[RowFilter, ...]:
    require_keys(entry, ("preset", *FILE_KEYS), where=where)
    name = entry["preset"]
    if name not in PRESETS:
        raise UserError(
            f"{where}: no preset {name!r}.{nearest(str(name), PRESETS)} Presets: {', '.join(PRESETS)}. A rule by itself "
            "is a mapping with its kind."
        )
    texts = _file_texts(entry, base=base, where=where)
    return PRESETS[name](() if texts is None else texts)


def _rule(entry: Mapping[str, Any], *, base: Path, where: str) -> RowFilter:
    kind = str(entry.get("kind"))
    if kind not in FILTERS:
        raise UserError(f"{where}: unknown kind {kind!r}.{nearest(kind, FILTERS)} Allowed: {', '.join(FILTERS)}.")
    rule = FILTERS[kind]
    fields = {f.name: f for f in dataclasses.fields(rule)}  # type: ignore[arg-type]
    compared = COMPARED_WITH.get(rule)
    allowed = tuple(name for name in fields if name != compared) + (FILE_KEYS if compared else ())
    needed = [name if name != compared else "files" for name, f in fields.items() if f.default is dataclasses.MISSING]
    require_keys(entry, ("kind", *allowed), where=where, needed=tuple(needed))
    settings = checked({key: value for key, value in entry.items() if key in fields}, rule, where=where)
    texts = _file_texts(entry, base=base, where=where)
    if compared and texts is not None:
        settings[compared] = texts
    try:
        return rule(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _file_texts(entry: Mapping[str, Any], *, base: Path, where: str) -> SourceTexts | None:
    """The texts in the files that an entry names; None when it names none."""
    if "files" not in entry:
        return None
    paths = [base / Path(file).expanduser() for file in texts_in(entry["files"], where=f"{where}.files")]
    lists = all(path.name.removesuffix(".gz").endswith(".json") for path in paths)
    source: FileSource = (JsonSource if lists else JsonlSource)(files={"texts": paths})
    return SourceTexts(source=source, fields=texts_in(entry.get("file_fields", []), where=f"{where}.file_fields"))
