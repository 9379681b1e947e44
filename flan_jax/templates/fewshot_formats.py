"""The few-shot formats of the Flan 2022 tasks: eleven structures, read from `styles/fewshot_formats.yaml`.

Which templates stand in them and how many examples are drawn is left to `collections.flan2022.variants`.
"""

import dataclasses
import functools
from pathlib import Path

from flan_jax.draws import Draws, hash64
from flan_jax.settings import Section
from flan_jax.templates.fewshot import FewShotFormat
from flan_jax.yaml_loader import read_mapping

FORMATS = Path(__file__).parent / "styles" / "fewshot_formats.yaml"
MIXED_SEPARATORS = ("\n", "\n\n", "\n\n\n")


def rotated(task: str) -> tuple[FewShotFormat, ...]:
    """Returns all formats, starting at one that the task's name decides, so that tasks of ten templates use all.

    >>> len(rotated("rte")), rotated("rte") == rotated("rte")
    (11, True)
    """
    every = tuple(form for form, _ in _read())
    start = hash64("few-shot formats", task) % len(every)
    return every[start:] + every[:start]


def mixed(task: str, *, seed: int = 0) -> tuple[FewShotFormat, ...]:
    """Returns the formats for examples under templates of all kinds, between which the task has one separator.

    The separator is one, two or three line ends, drawn once a task (Longpre et al. 2023, arXiv:2301.13688; there from
    an unseeded generator, here by name).
    """
    separator = Draws(seed, task, "separator").choice(MIXED_SEPARATORS)
    allowed = {form.name for form, may_mix in _read() if may_mix}
    return tuple(dataclasses.replace(f, separator=separator) for f in rotated(task) if f.name in allowed)


@functools.cache
def _read() -> tuple[tuple[FewShotFormat, bool], ...]:
    """Returns each format, and whether exemplars under different templates may use it."""
    content, place = read_mapping(FORMATS)
    entries, within = content["formats"], place.at("formats", content)
    sections = [Section(values=entry, place=within.at(i, entries)) for i, entry in enumerate(entries)]
    return tuple((entry.parse(FewShotFormat, also=("mixed",)), entry.get("mixed", bool, True)) for entry in sections)
