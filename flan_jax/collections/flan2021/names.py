"""The names of FLAN 2021's tasks (Wei et al. 2021, arXiv:2109.01652), formatted and parsed as in its released code.

    rte_type_3                           template 3, answered in free text
    rte_type_3_scoring_eval              the same with ranked options
    rte_type_3_score_flan_no_options     ranked options that the prompt does not show
    rte_type_3_score_eval_no_options     the same, for models that were not trained with FLAN's prompt
    rte_10templates                      for training, under the first ten templates
    rte_10templates_five_shot            with up to five exemplars; any name may have this suffix
    rte_all_prompts                      an older name of all templates

`variants` builds the tasks.
"""

import re
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["train", "all_prompts", "generate", "rank", "rank_no_options", "rank_flan_no_options"]

SHOTS = {"zero": 0, "one": 1, "two": 2, "three": 3, "five": 5, "ten": 10, "multi": 16}
"""The largest number of exemplars, by name."""
TEMPLATE_COUNTS = (1, 2, 4, 7, 10)
NUM_TEMPLATES = 10

ENDINGS: dict[Purpose, str] = {
    "generate": "_type_{n}",
    "rank": "_type_{n}_scoring_eval",
    "rank_no_options": "_type_{n}_score_eval_no_options",
    "rank_flan_no_options": "_type_{n}_score_flan_no_options",
    "train": "_{n}templates",
    "all_prompts": "_all_prompts",
}
_SHOT = re.compile(rf"^(.+)_({'|'.join(shot for shot in SHOTS if shot != 'zero')})_shot$")
_PATTERNS: dict[Purpose, re.Pattern[str]] = {
    # No leading zeros, so that each task has one name.
    purpose: re.compile(rf"^(.+){ending.format(n='(0|[1-9][0-9]*)')}$")
    for purpose, ending in ENDINGS.items()
}


@dataclass(frozen=True, kw_only=True)
class TaskName:
    """A task, as its name specifies it.

    >>> str(TaskName(dataset="rte", purpose="train", number=10, shot="five"))
    'rte_10templates_five_shot'
    >>> parse("rte_type_3_scoring_eval")
    TaskName(dataset='rte', purpose='rank', number=3, shot='zero')

    Attributes:
      dataset: One of the 70.
      purpose: See the module.
      number: Of the template; for "train" the number of templates, the first ones; None for "all_prompts".
      shot: A name in `SHOTS`.
    """

    dataset: str
    purpose: Purpose
    number: int | None
    shot: str = "zero"

    def __str__(self) -> str:
        ending = ENDINGS[self.purpose].format(n=self.number)
        return self.dataset + ending + shot_suffix(self.shot)

    @property
    def is_rank(self) -> bool:
        """Whether options are ranked."""
        return self.purpose.startswith("rank")

    @property
    def template(self) -> int | None:
        """The template of a task with only one; None for a task with several."""
        return None if self.purpose in ("train", "all_prompts") else self.number


def shot_suffix(shot: str) -> str:
    """Returns the suffix of the name of a task or a mixture.

    >>> shot_suffix("multi"), shot_suffix("zero")
    ('_multi_shot', '')
    """
    return "" if shot == "zero" else f"_{shot}_shot"


def without_shot(name: str) -> tuple[str, str]:
    """Splits the suffix for exemplars off a name.

    >>> without_shot("rte_10templates_five_shot")
    ('rte_10templates', 'five')
    """
    found = _SHOT.match(name)
    return (found[1], found[2]) if found else (name, "zero")


def parse(name: str) -> TaskName | None:
    """Returns the parsed name; None for one of another form. The dataset is not checked."""
    base, shot = without_shot(name)
    for purpose, pattern in _PATTERNS.items():
        found = pattern.match(base)
        if found:
            number = int(found[2]) if found.lastindex == 2 else None
            return TaskName(dataset=found[1], purpose=purpose, number=number, shot=shot)
    return None


def train_name(dataset: str, *, num_templates: int, shot: str) -> str:
    """Returns the name of a dataset's training task.

    >>> train_name("rte", num_templates=10, shot="one")
    'rte_10templates_one_shot'
    """
    return str(TaskName(dataset=dataset, purpose="train", number=num_templates, shot=shot))
