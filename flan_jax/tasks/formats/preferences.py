"""Preferences as training and evaluation rows: several answers to one prompt, and which of them people prefer.

Five shapes of files are read: a prompt (or a conversation) with `chosen` and `rejected`; two complete conversations
under these names, as in HH-RLHF; two outputs and the better one, as in LLMBar; one answer and whether it is desirable,
as for KTO; several answers with ranks. Retained is the minimum for training a reward model (Ouyang et al. 2022,
arXiv:2203.02155): prompt, answers, their order, the labeler's name. Ties carry no information and are dropped, with a
count.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

from flan_jax.annotations import NOT_IN_YAML
from flan_jax.draws import Draws
from flan_jax.names import shortened
from flan_jax.tasks.filters.rule import RowFilter, RowRule
from flan_jax.tasks.formats.chat import CONVERSATIONS, Conversational, turns_of
from flan_jax.tasks.formats.shape import NOT_THE_FORMAT, Format, Shape, text
from flan_jax.tasks.sources.rows import Row, Unusable
from flan_jax.templates.chat import Turn

TIE = "tie"
SAME = "both answers are the same"
UNDESIRABLE = "answer is undesirable"
ONE_ANSWER = "one answer is no pair"
VERDICT = "verdict"

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")

Rows = Literal["best", "pairs"]


class Rated(NamedTuple):
    """An answer and its rank; lower is better."""

    text: str
    rank: float


@dataclass(frozen=True, kw_only=True)
class NothingToLearn(RowRule):
    """Drops examples that the format marks as useless: ties and undesirable answers."""

    def reason(self, row: Row) -> str | None:
        """Returns the format's verdict."""
        return row[VERDICT] or None


@dataclass(frozen=True, kw_only=True)
class Preference(Conversational):
    """Answers to a prompt and their order: the best one is an example, or each pair is.

    Attributes:
      rows: "best" makes an example of each best-ranked answer; "pairs" makes one of each pair of answers, with
        `options` in an order drawn per pair. K answers are K (K - 1) / 2 pairs.
    """

    # The first that fits is a file's shape, so those with more required fields come before their subsets.
    shapes: ClassVar = (
        Shape(("conversations", "chosen", "rejected"), ("system", "tools", "labeler", "id")),
        Shape(("prompt", "chosen", "rejected"), ("system", "labeler", "id")),
        Shape(("instruction", "chosen", "rejected"), ("input", "system", "labeler", "id")),
        Shape(("input", "output_1", "output_2", "label"), ("labeler", "id")),
        Shape(("prompt", "answers", "ranks"), ("system", "labeler", "id")),
        Shape(("messages", "label"), ("labeler", "id")),
        Shape(("conversations", "label"), ("system", "tools", "labeler", "id")),
        Shape(("prompt", "completion", "label"), ("system", "labeler", "id")),
        Shape(("chosen", "rejected"), ("system", "labeler", "id")),
    )
    cluster: ClassVar = "preferences"
    metrics: ClassVar = ("rouge_l",)
    options: ClassVar = "options"
    rows: Rows = field(default="best", metadata=NOT_IN_YAML)  # Follows from the task's `evaluation`.

    def __call__(self, row: Row) -> Iterable[Row]:
        """Returns the examples; `verdict` holds the reason why one is useless, or ""."""
        turns, answers = _prompt_and_answers(row)
        prompt = self.prompt_of(turns, style=self.style_of(turns)).text
        shared = {"prompt": prompt, "labeler": text(row, "labeler", required=False)}
        made = self._pairs(prompt, answers) if self.rows == "pairs" else _best(answers)
        return [{**shared, **example} for example in made]

    def check(self, row: Row) -> None:
        """Rejects a row without prompt or answers, without building prompts."""
        _prompt_and_answers(row)

    def filters(self) -> tuple[RowFilter, ...]:
        """Returns the rule that drops and counts useless examples."""
        return (NothingToLearn(),)

    def evaluated(self, evaluation: Literal["generate", "rank"]) -> Format:
        """Returns the format with pairs for ranking, and with the best answers for generation."""
        return replace(self, rows="pairs" if evaluation == "rank" else "best")

    def _pairs(self, prompt: str, answers: list[Rated]) -> Iterator[Row]:
        if len(answers) < 2:
            yield {"target": answers[0].text, "rejected": "", "options": [answers[0].text], VERDICT: ONE_ANSWER}
        for first, second in itertools.combinations(answers, 2):
            better, worse = sorted((first, second), key=lambda answer: answer.rank)
            verdict = TIE if better.rank == worse.rank else SAME if better.text == worse.text else ""
            options = [better.text, worse.text]
            if Draws(self.seed, "options", prompt, *options).below(2):
                # So that the position of the better answer gives nothing away.
                options.reverse()
            yield {"target": better.text, "rejected": worse.text, "options": options, VERDICT: verdict}


def _best(answers: list[Rated]) -> Iterator[Row]:
    ranks = sorted(answer.rank for answer in answers)
    if len(answers) == 1:  # Desirable or not, with no other answer to compare with.
        yield {"target": answers[0].text, VERDICT: UNDESIRABLE if ranks[0] else ""}
    elif ranks[0] == ranks[-1]:
        yield {"target": answers[0].text, VERDICT: TIE}
    else:
        for answer in answers:
            if answer.rank == ranks[0]:
                yield {"target": answer.text, VERDICT: ""}


def _prompt_and_answers(row: Row) -> tuple[list[Turn], list[Rated]]:
    """Returns the prompt as turns, and the answers with their ranks."""
    if _has(row, "chosen", "rejected"):
        if not any(_has(row, name) for name in ("prompt", "instruction", "input", *CONVERSATIONS)):
            return _two_conversations(row)
        answers = [Rated(_answer(row, "chosen"), 0), Rated(_answer(row, "rejected"), 1)]
        return _prompt(row), answers
    if _has(row, "output_1", "output_2", "label"):
        first, second = _compared(row["label"])
        return _prompt(row), [Rated(text(row, "output_1"), first), Rated(text(row, "output_2"), second)]
    if _has(row, "answers", "ranks"):
        return _prompt(row), _ranked(row["answers"], row["ranks"])
    is_desirable = row.get("label")
    if not isinstance(is_desirable, bool):
        raise Unusable(NOT_THE_FORMAT, f"label must be true (desirable) or false, got {shortened(is_desirable)}")
    if _has(row, "completion"):
        return _prompt(row), [Rated(text(row, "completion"), 0 if is_desirable else 1)]
    *turns, last = turns_of(row)
    if last.role != "assistant":
        raise Unusable(NOT_THE_FORMAT, "the last turn must be the assistant's: it is the rated answer")
    return turns, [Rated(last.text, 0 if is_desirable else 1)]


def _has(row: Row, *fields: str) -> bool:
    return all(row.get(field) is not None for field in fields)


def _two_conversations(row: Row) -> tuple[list[Turn], list[Rated]]:
    """Returns the prompt and the answers of two conversations that differ in the last turn, as in HH-RLHF."""
    (*prompt, chosen), (*other, rejected) = _conversation(row, "chosen"), _conversation(row, "rejected")
    if prompt != other:
        raise Unusable(NOT_THE_FORMAT, "chosen and rejected must be conversations that differ in the last turn only")
    if not (chosen.role == rejected.role == "assistant"):
        raise Unusable(NOT_THE_FORMAT, "the last turns of chosen and rejected must be the assistant's: the answers")
    return prompt, [Rated(chosen.text, 0), Rated(rejected.text, 1)]


def _conversation(row: Row, field: str) -> list[Turn]:
    """Returns the turns of a list of turns, or of a transcript in HH-RLHF's notation."""
    value, system = row[field], row.get("system")
    if isinstance(value, list):
        is_sharegpt = bool(value) and isinstance(value[0], Mapping) and "from" in value[0]
        return turns_of({"conversations" if is_sharegpt else "messages": value, "system": system})
    # `text` strips the blank line that the pattern begins with.
    before, *parts = _SPEAKER.split(f"\n\n{text(row, field)}")
    turns = [{"from": who.lower(), "value": said} for who, said in zip(parts[::2], parts[1::2], strict=True)]
    if before.strip() or not turns:
        raise Unusable(
            NOT_THE_FORMAT,
            f"{field} must be a conversation that begins with 'Human:', as the row has no prompt; got "
            f"{shortened(row[field])}",
        )
    return turns_of({"conversations": turns, "system": system})


def _prompt(row: Mapping[str, Any]) -> list[Turn]:
    """Returns the prompt as turns. A row with a prompt may contain the complete conversation, too."""
    if isinstance(row.get("prompt"), list):
        return turns_of({"messages": row["prompt"], "system": row.get("system")})
    field = next((name for name in ("prompt", "instruction") if row.get(name) is not None), None)
    if field is None and any(row.get(name) is not None for name in CONVERSATIONS):
        return turns_of(row)
    given = text(row, "input", required=False) if field == "instruction" else ""
    prompt = f"{text(row, field or 'input')}\n\n{given}".strip()
    system = text(row, "system", required=False)
    return [*([Turn("system", system)] if system else []), Turn("user", prompt)]


def _answer(row: Mapping[str, Any], field: str) -> str:
    """Returns an answer: a text, a turn, or the last of a list of turns."""
    value = row.get(field)
    last = value[-1] if isinstance(value, list) and value else value
    if isinstance(last, Mapping):
        content = next((key for key in ("value", "content") if key in last), "value")
        return text({field: last.get(content)}, field)
    return text({field: last}, field)


def _compared(label: object) -> tuple[int, int]:
    """Returns the ranks of two outputs from the label of the better one: 1 or 2, or 0 for a tie."""
    ranks = {1: (0, 1), 2: (1, 0), 0: (0, 0), "1": (0, 1), "2": (1, 0), "0": (0, 0), "tie": (0, 0)}
    # True equals 1 in Python, but it means "desirable" in another shape.
    if isinstance(label, bool) or not isinstance(label, (int, float, str)) or label not in ranks:
        raise Unusable(
            NOT_THE_FORMAT, f"label must be 1 or 2 for the better output, 0 for a tie; got {shortened(label)}"
        )
    return ranks[int(label) if isinstance(label, float) else label]


def _ranked(answers: object, ranks: object) -> list[Rated]:
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
    return [Rated(answer.strip(), rank) for answer, rank in zip(answers, ranks, strict=True)]
