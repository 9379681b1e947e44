"""Filters as YAML files declare them, and the presets of published collections.

    filters:
      - {kind: length, field: instruction, min_words: 4, max_words: 150}
      - {kind: keywords, field: instruction, words: [image, graph]}
      - {kind: near_duplicates, fields: [instruction, input], threshold: 0.8}
      - {kind: contamination, fields: [input], evaluation: {files: [test.jsonl], fields: [question]}, ngram: 13}
      - {preset: self_instruct, seeds: {files: seeds.jsonl, fields: [instruction]}}

The keys are the attributes of the classes in `FILTERS`; their docstrings define them. Texts to compare with are a list,
or `files` with the `fields` that hold them (see `FileTexts`).
"""

from collections.abc import Callable, Mapping

from flan_jax.errors import in_errors
from flan_jax.names import require_choice
from flan_jax.settings import Place, parse, parse_kind, require_mapping
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
from flan_jax.tasks.filters.texts import Texts

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
UNSUITABLE_WORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to",
)  # fmt: skip
"""Words by which Self-Instruct recognizes instructions that a language model cannot follow."""


def self_instruct_filters(*, seeds: Texts = ()) -> tuple[RowFilter, ...]:
    """Returns the rules of Self-Instruct for generated rows (Wang et al. 2022, arXiv:2212.10560, section 2.2).

    They drop instructions with fewer than 4 or more than 150 words, with certain words, beginnings or characters, or
    similar to others; then instances whose output equals the input, is empty or is truncated, instructions whose
    instances conflict, duplicates, and more than 5 instances of an instruction. The original draws 5 of them; here the
    first 5 are retained.

    Args:
      seeds: Earlier instructions that new ones must differ from.
    """
    return (
        Length(field="instruction", min_words=4, max_words=150),
        Keywords(field="instruction", words=UNSUITABLE_WORDS),
        Beginnings(field="instruction", prefixes=("Write a program",), punctuation=True, non_ascii=True),
        # After the cheap rules: its comparisons are the only expensive ones.
        Novelty(field="instruction", threshold=0.7, against=seeds, once=True),
        InputEqualsOutput(),
        Length(field="output", min_words=1),
        Truncated(fields=("input", "output")),
        # Before duplicates are dropped and rows are capped: a conflict must be seen to drop its whole group.
        Conflicts(inputs=("instruction", "input"), outputs=("output",), unless_blank="input", group=("instruction",)),
        Duplicates(fields=("instruction", "input", "output")),
        AtMost(field="instruction", rows=5),
    )


PRESETS: Mapping[str, Callable[..., tuple[RowFilter, ...]]] = {"self_instruct": self_instruct_filters}


def parse_filters(value: object, place: Place) -> tuple[RowFilter, ...]:
    """Returns the rules that the value of `filters` declares.

    >>> parse_filters([{"kind": "length", "field": "question", "min_words": 2}], Place(file="my.yaml"))
    (Length(field='question', min_words=2, max_words=None),)

    Args:
      value: A list of mappings, each with its kind, and names of presets; or one of these alone.
      place: Of the value.

    Raises:
      UserError: An unknown kind, preset or key, or an invalid value.
    """
    if not isinstance(value, (list, tuple)):
        return _parse_entry(value, place)
    return tuple(rule for i, entry in enumerate(value) for rule in _parse_entry(entry, place.at(i, value)))


def _parse_entry(entry: object, place: Place) -> tuple[RowFilter, ...]:
    if isinstance(entry, str):
        entry = {"preset": entry}
    if "preset" not in require_mapping(entry, place):
        return (parse_kind(entry, FILTERS, place),)
    mapping = require_mapping(entry, place)
    with in_errors(place):
        require_choice(mapping["preset"], PRESETS, "a preset (a single rule is a mapping with its kind)")
    return parse(mapping, PRESETS[mapping["preset"]], place, also=("preset",))
