"""T0's prompts in Flan 2022 (Longpre et al. 2023, arXiv:2301.13688), for datasets that FLAN 2021 lacks.

A row is first rendered under its promptsource template; the result is the question in ten templates of this project:
193 tasks from 20 groups of datasets. Choices that a prompt does not show are listed after it. `t0` provides prompts and
rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from flan_jax.collections.t0.prompted import Contents, Prompt, T0Settings
from flan_jax.tasks.declare import Normalizer, TemplatedTask
from flan_jax.tasks.filters.rule import Judge, RowFilter
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates import load
from flan_jax.templates.render import NotApplicable, Pattern, Template

TEMPLATES = Path(load.__file__).parent / "flan2022.yaml"
LEFT_OUT = "left_out_"

Kind = Literal["free", "shown", "separate"]
"""Whether a prompt has a free-text answer, shows its choices, or has choices that are listed after it."""

GROUPS: Mapping[str, Mapping[str, int]] = {
    "wiki": {"wiki_hop/original": 9, "wiki_qa": 11, "wiki_bio": 5},
    "duorc": {"duorc/SelfRC": 9, "duorc/ParaphraseRC": 9},
    "race": {"race/high": 8, "race/middle": 8},
    "adversarial_qa": {"adversarial_qa/dbidaf": 5, "adversarial_qa/dbert": 5, "adversarial_qa/droberta": 5},
    "quail": {"quail": 13},
    "ropes": {"ropes": 12},
    "quoref": {"quoref": 11},
    "cos_e": {"cos_e/v1.11": 11},
    "amazon_polarity": {"amazon_polarity": 9},
    "qasc": {"qasc": 8},
    "quartz": {"quartz": 8},
    "wiqa": {"wiqa": 8},
    "social_i_qa": {"social_i_qa": 6},
    "dream": {"dream": 5},
    "kilt_hotpotqa": {"kilt_tasks/hotpotqa": 5},
    "quarel": {"quarel": 5},
    "sciq": {"sciq": 5},
    "web_questions": {"web_questions": 5},
    "app_reviews": {"app_reviews": 4},
    "dbpedia_14": {"dbpedia_14": 4},
}
"""The datasets of each group, and the number of prompts for each."""
DATASETS: Mapping[str, int] = {name: count for group in GROUPS.values() for name, count in group.items()}

# Where promptsource's own metadata are wrong: whether there are choices, and whether the prompt shows them.
EXCEPTIONS: Mapping[str, Kind] = {
    "app_reviews_convert_to_star_rating": "shown",
    "wiqa_does_the_supposed_perturbation_have_an_effect": "free",
    "wiqa_effect_with_label_answer": "free",
    "wiqa_effect_with_string_answer": "free",
    "wiqa_which_of_the_following_is_the_supposed_perturbation": "free",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskPrompt:
    """From a dataset's row to the text, target and choices of a prompt.

    Attributes:
      prompt: The template.
      before: The dataset's own normalizer.
    """

    prompt: Pattern
    before: Normalizer | None = None

    def __call__(self, row: Row) -> Iterator[Row]:
        """Yields `question`, `answer` and `options`; or why the prompt does not apply to the row."""
        found = row if self.before is None else self.before(row)
        for one in () if found is None else (found,) if isinstance(found, dict) else found:
            try:
                rendered = self.prompt.render(one)
            except NotApplicable as left_out:
                yield {LEFT_OUT: left_out.reason}
                continue
            yield {"question": rendered.inputs, "answer": rendered.targets, "options": list(rendered.options)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptApplies(RowFilter):
    """Drops rows to which the prompt does not apply, under the prompt's own reason."""

    def start(self, split: str, rows: Callable[[], Iterable[Row]]) -> Judge:
        """Returns a function that judges each row separately."""
        del split, rows
        return lambda row: row.get(LEFT_OUT)


def records(settings: T0Settings) -> Iterator[TemplatedTask]:
    """Yields one task per prompt of the datasets in an archive."""
    collection = Contents(settings)
    for dataset in DATASETS:
        if dataset in settings.archive.members:
            for prompt in collection.prompts(dataset):
                yield _record(prompt, collection.declared(prompt, name=prompt.task))


def notes(settings: T0Settings) -> tuple[str, ...]:
    """Returns notes on an archive: the datasets without prompts in it."""
    lacking = [dataset for dataset in DATASETS if dataset not in settings.archive.members]
    if not lacking:
        return ()
    return (
        f"{settings.archive.path} has no prompts for {len(lacking)} of {len(DATASETS)} datasets: {', '.join(lacking)}.",
    )


def kind_of(prompt: Prompt) -> Kind:
    """Returns how a prompt is answered in the collection."""
    if prompt.task in EXCEPTIONS:
        return EXCEPTIONS[prompt.task]
    if not prompt.template.gives_options:
        return "free"
    return "shown" if prompt.template.metadata.choices_in_prompt else "separate"


def _record(prompt: Prompt, base: TemplatedTask) -> TemplatedTask:
    kind = kind_of(prompt)
    return dataclasses.replace(
        base,
        templates=_templates()["t0_separate_options" if kind == "separate" else "t0"],
        options="options" if kind == "separate" else None,
        metrics=("accuracy", "rouge_l") if kind == "free" else ("accuracy",),
        postprocessor="first_line" if kind == "free" else None,
        normalizer=AskPrompt(prompt=prompt.template, before=base.normalizer),
        filters=(PromptApplies(),),
        ends_inputs=True,  # As in all of Flan 2022; T0's own tasks differ.
    )


@functools.cache
def _templates() -> Mapping[str, tuple[Template, ...]]:
    return load.template_sets(TEMPLATES)
