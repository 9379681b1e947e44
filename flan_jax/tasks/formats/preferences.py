"""Preferences as training and evaluation rows: several answers to one prompt, and which of them people like better.

Five shapes of files: a prompt (or a conversation) with `chosen` and `rejected`; two outputs and which is better, as
LLMBar's; one answer and whether it is wanted, as for KTO; any number of answers with ranks. The least that reward
models are trained on is kept (Ouyang et al. 2022, arXiv:2203.02155): prompt, answers, their order, the labeler's name.
Ties say nothing and are left out, counted.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from flan_jax.draws import Draws
from flan_jax.errors import UserError
from flan_jax.names import nearest, shortened
from flan_jax.settings import NOT_IN_YAML
from flan_jax.tasks.filters.rule import RowFilter, RowRule
from flan_jax.tasks.formats.chat import CONVERSATIONS, Conversational, turns_of
from flan_jax.tasks.formats.shape import NOT_THE_FORMAT, Format, Shape, Unusable, text
from flan_jax.tasks.sources.rows import Row
from flan_jax.templates.chat import Turn

TIE = "tie"
SAME = "both answers are the same"
UNWANTED = "answer is not wanted"
ONE_ANSWER = "one answer is no pair"
VERDICT = "verdict"

Rows = Literal["best", "pairs"]


class Judged(NamedTuple):
    """An answer and its rank; the lower the better."""

    text: str
    rank: float


@dataclass(frozen=True, kw_only=True)
class NothingToLearn(RowRule):
    """Leaves out what a format has judged to be of no use: ties, and answers that nobody wants."""

    def reason(self, row: Row) -> str | None:
        """Returns the format's verdict."""
        return row[VERDICT] or None


@dataclass(frozen=True, kw_only=True)
class Preference(Conversational):
    """Answers to a prompt with their order: the best one is an example, or each pair is.

    Attributes:
      rows: "best" makes an example of each answer that none is better than; "pairs" one of each two answers, with
        `options` in an order that the pair draws. K answers are K (K - 1) / 2 pairs.
    """

    shapes: ClassVar = (
        Shape(("conversations", "chosen", "rejected"), ("system", "tools", "labeler", "id")),
        Shape(("prompt", "chosen", "rejected"), ("system", "labeler", "id")),
        Shape(("instruction", "chosen", "rejected"), ("input", "system", "labeler", "id")),
        Shape(("input", "output_1", "output_2", "label"), ("labeler", "id")),
        Shape(("prompt", "answers", "ranks"), ("system", "labeler", "id")),
        Shape(("messages", "label"), ("labeler", "id")),
        Shape(("conversations", "label"), ("system", "tools", "labeler", "id")),
        Shape(("prompt", "completion", "label"), ("system", "labeler", "id")),
    )
    cluster: ClassVar = "preferences"
    metrics: ClassVar = ("rouge_l",)
    options: ClassVar = "options"
    rows: Rows = field(default="best", metadata=NOT_IN_YAML)  # By the evaluation of the task.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows not in get_args(Rows):
            raise UserError(
                f"rows must be one of {', '.join(get_args(Rows))}; got {self.rows!r}."
                f"{nearest(str(self.rows), get_args(Rows))}"
            )

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the examples, those that say nothing with the reason in `verdict`."""
        turns, answers = _prompt_and_answers(row)
        prompt = self.prompt_of(turns, style=self.style_of(turns)).text
        shared = {"prompt": prompt, "labeler": text(row, "labeler", needed=False)}
        made = self._pairs(prompt, answers) if self.rows == "pairs" else _best(answers)
        return [{**shared, **example} for example in made]

    def check(self, row: Row) -> None:
        """Refuses a row without prompt or answers, without making prompts."""
        _prompt_and_answers(row)

    def filters(self) -> tuple[RowFilter, ...]:
        """Returns the rule that counts what says nothing."""
        return (NothingToLearn(),)

    def evaluated(self, evaluation: Literal["generate", "rank"]) -> Format:
        """Returns the format with pairs for ranking, with the best answers for writing."""
        return replace(self, rows="pairs" if evaluation == "rank" else "best")

    def _pairs(self, prompt: str, answers: list[Judged]) -> Iterator[Row]:
        if len(answers) < 2:
            yield {"target": answers[0].text, "rejected": "", "options": [answers[0].text], VERDICT: ONE_ANSWER}
        for first, second in itertools.combinations(answers, 2):
            better, worse = sorted((first, second), key=lambda answer: answer.rank)
            verdict = TIE if better.rank == worse.rank else SAME if better.text == worse.text else ""
            options = [better.text, worse.text]
            if Draws(self.seed, "options", prompt, *options).below(2):
                options.reverse()
            yield {"target": better.text, "rejected": worse.text, "options": options, VERDICT: verdict}


def _best(answers: list[Judged]) -> Iterator[Row]:
    ranks = sorted(answer.rank for answer in answers)
    if len(answers) == 1:  # Wanted or not, with nothing to compare with.
        yield {"target": answers[0].text, VERDICT: UNWANTED if ranks[0] else ""}
    elif ranks[0] == ranks[-1]:
        yield {"target": answers[0].text, VERDICT: TIE}
    else:
        for answer in answers:
            if answer.rank == ranks[0]:
                yield {"target": answer.text, VERDICT: ""}


def _prompt_and_answers(row: Row) -> tuple[list[Turn], list[Judged]]:
    """What was asked, and the answers with their ranks."""
    if "chosen" in row:
        answers = [Judged(_answer(row, "chosen"), 0), Judged(_answer(row, "rejected"), 1)]
        return _asked(row), answers
    if "output_1" in row:
        first, second = _compared(row["label"])
        return _asked(row), [Judged(text(row, "output_1"), first), Judged(text(row, "output_2"), second)]
    if "answers" in row:
        return _asked(row), _ranked(row["answers"], row["ranks"])
    wanted = row["label"]
    if not isinstance(wanted, bool):
        raise Unusable(NOT_THE_FORMAT, f"label must be true (wanted) or false, got {shortened(wanted)}")
    if "completion" in row:
        return _asked(row), [Judged(text(row, "completion"), 0 if wanted else 1)]
    *turns, last = turns_of(row)
    if last.role != "assistant":
        raise Unusable(NOT_THE_FORMAT, "the last turn must be the assistant's, which is the answer that is judged")
    return turns, [Judged(last.text, 0 if wanted else 1)]


def _asked(row: Mapping[str, Any]) -> list[Turn]:
    """The prompt as turns. A row with a prompt may hold the whole conversation too, with the answer in it."""
    if isinstance(row.get("prompt"), list):
        return turns_of({"messages": row["prompt"], "system": row.get("system")})
    field = next((name for name in ("prompt", "instruction") if row.get(name) is not None), None)
    if field is None and any(row.get(name) is not None for name in CONVERSATIONS):
        return turns_of(row)
    given = text(row, "input", needed=False) if field == "instruction" else ""
    asked = f"{text(row, field or 'input')}\n\n{given}".strip()
    system = text(row, "system", needed=False)
    return [*([Turn("system", system)] if system else []), Turn("user", asked)]


def _answer(row: Mapping[str, Any], field: str) -> str:
    """An answer: a text, a turn, or a list of turns of which it is the last."""
    value = row.get(field)
    last = value[-1] if isinstance(value, list) and value else value
    if isinstance(last, Mapping):
        said = next((key for key in ("value", "content") if key in last), "value")
        return text({field: last.get(said)}, field)
    return text({field: last}, field)


def _compared(label: object) -> tuple[int, int]:
    """Ranks of two outputs, of which 1 or 2 is better, or 0 for neither."""
    ranks = {1: (0, 1), 2: (1, 0), 0: (0, 0), "1": (0, 1), "2": (1, 0), "0": (0, 0), "tie": (0, 0)}
    if isinstance(label, bool) or not isinstance(label, (int, str)) or label not in ranks:
        raise Unusable(
            NOT_THE_FORMAT, f"label must be 1 or 2 for the better output, 0 for a tie; got {shortened(label)}"
        )
    return ranks[label]


def _ranked(answers: object, ranks: object) -> list[Judged]:
    if (
        not isinstance(answers, list)
        or not isinstance(ranks, list)
        or len(answers) != len(ranks)
        or len(answers) < 2
        or not all(isinstance(answer, str) and answer.strip() for answer in answers)
        or not all(isinstance(rank, (int, float)) and not isinstance(rank, bool) for rank in ranks)
    ):
        raise Unusable(
            NOT_THE_FORMAT,
            "answers must list two texts or more, and ranks a number for each, the lower the better; got "
            f"{shortened(answers)} and {shortened(ranks)}",
        )
    return [Judged(answer.strip(), rank) for answer, rank in zip(answers, ranks, strict=True)]
