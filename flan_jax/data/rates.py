"""Relative rates of tasks: arithmetic from counts, for the definition of a mixture, its export and the feed.

`mixture` selects examples by them; the exporter counts examples.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from flan_jax.annotations import Positive, Within, check_fields
from flan_jax.errors import UserError
from flan_jax.names import require_choice

ShareUnit = Literal["examples", "tokens"]
Temperature = Annotated[float, Within(least=0.05)]
"""Below, the rate of a large task exceeds the largest number."""
Members = Sequence[tuple["str | Members", float]]
"""A mixture: pairs of (task name or nested mixture, relative rate)."""


def proportional_rate(
    num_examples: float,
    *,
    maximum: float | None = None,
    temperature: float = 1.0,
    scale: float = 1.0,
    minimum: float | None = None,
) -> float:
    """Returns the examples-proportional rate of a task, in SeqIO's order: size x scale, then the cap, then ^(1/T).

    >>> [round(proportional_rate(n, maximum=30_000, temperature=2.0), 3) for n in (4_000_000, 50_000, 250)]
    [173.205, 173.205, 15.811]

    Args:
      num_examples: Rows of the task's training split.
      maximum: The cap K: a larger task counts as this many examples (T5, arXiv 1910.10683, section 3.5.2).
      temperature: T of the same section; 1 is proportional, large is equal.
      scale: Multiplies the size before the cap.
      minimum: A smaller task counts as this many examples, before the temperature.

    Raises:
      UserError: A number that is not positive.
    """
    given = {"num_examples": num_examples, "temperature": temperature, "scale": scale}
    given |= {name: bound for name, bound in (("maximum", maximum), ("minimum", minimum)) if bound is not None}
    for name, number in given.items():
        if not (number > 0 and math.isfinite(number)):
            raise UserError(f"A rate needs a positive, finite {name}; got {number!r}.")
    size = num_examples * scale
    size = size if maximum is None else min(size, maximum)
    size = size if minimum is None else max(size, minimum)
    return float(size) if temperature == 1.0 else float(size) ** (1.0 / temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProportionalRate:
    """A rate function for SeqIO mixtures; equal settings make equal objects, and it prints its settings.

    Called with a task it asks the task for its training rows; the exporter calls `of` with the count it measured.
    """

    maximum: Positive | None = None
    temperature: Temperature = 1.0
    scale: Positive = 1.0
    minimum: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def of(self, num_examples: float) -> float:
        """Returns the rate of a task with this many examples; see `proportional_rate`."""
        return proportional_rate(num_examples, **dataclasses.asdict(self))

    def __call__(self, task: Any) -> float:
        """Returns the rate of a SeqIO task that has as many training examples as its source has rows."""
        num_examples = task.num_input_examples("train")
        if not num_examples:
            raise UserError(
                f"The training rows of task {task.name!r} are not known ({num_examples!r}), so a proportional rate "
                "cannot be computed; give the source its number of rows, or the member a number as its rate."
            )
        return self.of(num_examples)


class StatedShare(float):
    """A member's rate with a unit: this share of a mixture's examples, or of its tokens.

    A number to SeqIO, which draws by examples. Exporting turns a share of tokens, of inputs and targets together, into
    one of examples by the lengths that it measures.

    >>> StatedShare(0.05, unit="tokens")
    StatedShare(0.05, unit='tokens')
    """

    unit: ShareUnit

    def __new__(cls, share: float, *, unit: ShareUnit) -> "StatedShare":
        """Makes a share.

        Raises:
          UserError: Not between 0 and 1, or of an unknown unit.
        """
        require_choice(unit, get_args(ShareUnit), "the unit of a share")
        if not 0 < share < 1:
            raise UserError(f"A share of {unit} must be above 0 and below 1; got {share!r}.")
        made = super().__new__(cls, share)
        made.unit = unit
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, str]]:  # Copies are made through `__new__`.
        return (float(self),), {"unit": self.unit}

    def __repr__(self) -> str:
        return f"StatedShare({float(self)!r}, unit={self.unit!r})"


def rates_of_shares(
    shares: Mapping[str, float], *, unit: ShareUnit, mean_tokens: Mapping[str, float]
) -> dict[str, float]:
    """Returns the rates of draws at which members get their shares.

    A twentieth of the tokens, in examples six times as long as the others:

    >>> rates = rates_of_shares({"all": 0.95, "wiki": 0.05}, unit="tokens", mean_tokens={"all": 100, "wiki": 600})
    >>> round(rates["wiki"] / sum(rates.values()), 5)
    0.0087

    Args:
      shares: The relative share of each member.
      unit: The unit of the shares.
      mean_tokens: Mean tokens of an example of each member, inputs and targets together.
    """
    return {name: share / (mean_tokens[name] if unit == "tokens" else 1.0) for name, share in shares.items()}


@dataclasses.dataclass(frozen=True)
class Counted:
    """A SeqIO task as its rate function should see it: with the number of examples that its export counted.

    `seqio.mixing_rate_num_examples` and `ProportionalRate` then cap the measured count, not a published one.
    """

    task: Any
    num_examples: int
    # SeqIO's rate functions read the statistics of its own cache where this is set, else they call
    # `num_input_examples`.
    cache_dir: None = None

    def num_input_examples(self, split: str) -> int:
        """Returns the measured count, whatever the split."""
        del split
        return self.num_examples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


def flatten(members: Members) -> dict[str, float]:
    """Returns the rate of each task of a nested mixture; a task reached on two paths adds up.

    A nested mixture at rate w gives its member of rate r the rate w x r / (sum of its members' rates).

    >>> ab = [("a", 1), ("b", 1)]
    >>> flatten([(ab, 1), ("c", 1)])
    {'a': 0.5, 'b': 0.5, 'c': 1.0}
    >>> flatten([(ab, 1), ("c", 1), ("a", 1)])
    {'a': 1.5, 'b': 0.5, 'c': 1.0}

    Raises:
      UserError: An empty mixture, or a rate that is not positive.
    """
    if not members:
        raise UserError("A mixture needs at least one member; got none.")
    flat: dict[str, float] = {}
    for member, rate in members:
        if not (rate > 0 and math.isfinite(rate)):
            shown = member if isinstance(member, str) else "a nested mixture"
            raise UserError(f"The rate of {shown} must be positive and finite; got {rate!r}. Leave it out instead.")
        for name, share in ({member: 1.0} if isinstance(member, str) else shares(flatten(member))).items():
            flat[name] = flat.get(name, 0.0) + rate * share
    return flat


def shares(rates: Mapping[str, float]) -> dict[str, float]:
    """Returns each task's share of the draws; they sum to 1.

    >>> shares({"a": 3.0, "b": 1.0})
    {'a': 0.75, 'b': 0.25}
    """
    # Rounded once, so that the order of the tasks does not change a share.
    total = math.fsum(rates.values())
    return {name: rate / total for name, rate in rates.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberShare:
    """The share and the epochs of a task of a mixture in a run: a line of `flan-jax show mixture`."""

    name: str
    num_examples: int
    rate: float
    share: float
    expected_examples: float
    expected_epochs: float


def member_shares(
    rates: Mapping[str, float], *, num_examples: Mapping[str, int], examples_drawn: float
) -> list[MemberShare]:
    """Returns what each task gets when `examples_drawn` examples are drawn in all, in the order of `rates`.

    >>> for m in member_shares({"a": 3, "b": 1}, num_examples={"a": 300, "b": 10}, examples_drawn=1000):
    ...     print(m.name, m.share, m.expected_examples, m.expected_epochs)
    a 0.75 750.0 2.5
    b 0.25 250.0 25.0
    """
    return [
        MemberShare(
            name=name,
            num_examples=num_examples[name],
            rate=float(rates[name]),
            share=share,
            expected_examples=share * examples_drawn,
            expected_epochs=share * examples_drawn / num_examples[name],
        )
        for name, share in shares(rates).items()
    ]
