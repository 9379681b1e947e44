"""Decoding strategies: how tokens are chosen from the logits. Frozen objects, so that gin can bind one.

A field has the name of its setting in transformers' `GenerationConfig`, where there is one, and follows its
rules, unless another field names other rules.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from flan_jax.annotations import Count, Fraction, NotNegative, Positive, PositiveInt, Within, check_fields
from flan_jax.errors import UserError
from flan_jax.names import nearest

_MANY_BEAMS = Annotated[int, Within(least=2)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
    """The settings that all strategies share; use a subclass.

    Attributes:
      min_new_tokens: Tokens of a prediction before the end of sequence is allowed.
      repetition_penalty: Divides the positive scores of tokens that the prediction has, and multiplies the negative
        ones (Keskar et al., 1909.05858, section 4.1). 1 changes nothing.
      no_repeat_ngram_size: The size of n-grams that a prediction has at most once. 0 allows all.
      stop_strings: Texts that end a prediction, which is truncated before them.
    """

    min_new_tokens: Count = 0
    repetition_penalty: Positive = 1.0
    no_repeat_ngram_size: Count = 0
    stop_strings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if type(self) is Strategy:
            raise UserError("Strategy is not a strategy by itself: use Greedy, Sampling or BeamSearch.")
        if isinstance(self.stop_strings, str):
            object.__setattr__(self, "stop_strings", (self.stop_strings,))
        check_fields(self)
        if "" in self.stop_strings:
            raise UserError("stop_strings has an empty text, which every prediction contains. Remove it.")

    @property
    def num_hypotheses(self) -> int:
        """Predictions per row."""
        return 1

    @property
    def num_candidates(self) -> int:
        """Hypotheses of a row that are decoded at the same time."""
        return 1

    def record(self) -> dict[str, Any]:
        """Returns the name and the settings, as JSON, for the records of an evaluation."""
        return {"strategy": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(Strategy):
    """The most likely token; among equals the one with the smallest id."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Strategy):
    """Tokens drawn from the softmax of the logits, which is first divided by the temperature, then filtered.

    The filters apply in transformers' order: top_k, top_p, min_p. A sample depends on the seed, the number of its row
    and its own number, and not on its batch.

    Attributes:
      temperature: Divides the logits; 0 decodes as `Greedy`.
      top_k: The number of most likely tokens to draw from; 0 is all.
      top_p: The least probability of the set of most likely tokens to draw from (Holtzman et al., 1904.09751); 1 is
        all.
      min_p: The least probability of a token to draw, as a share of the most likely token's (Nguyen et al.,
        2407.01082); 0 is none.
      num_samples: Samples per row.
      seed: The seed of the random numbers.
    """

    temperature: NotNegative = 1.0
    top_k: Count = 0
    top_p: Fraction = 1.0
    min_p: Fraction = 0.0
    num_samples: PositiveInt = 1
    seed: Count = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature == 0 and self.num_samples > 1:
            raise UserError(
                f"Sampling.temperature is 0, which decodes greedily, and num_samples is {self.num_samples}: all would "
                "be equal. Use one sample, or a temperature above 0."
            )

    @property
    def num_hypotheses(self) -> int:
        """See the base class."""
        return self.num_samples

    @property
    def num_candidates(self) -> int:
        """See the base class."""
        return self.num_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch(Strategy):
    """The hypotheses with the highest score among those that a search with several beams meets.

    The score of a hypothesis is the sum of its tokens' log-probabilities, divided by a penalty for its length.

    Attributes:
      num_beams: Hypotheses that are continued at each step.
      length_penalty: The exponent of the length; above 0 favors long hypotheses.
      early_stopping: Whether a row ends once it has `num_beams` ended hypotheses (True), once the best running one
        would not be better if it ended now (False), or once no running one can become better ("never").
      num_return_sequences: Predictions per row, best first.
      rule: Whose beam search: "transformers", or "t5x", where the length counts as (5 + length) / 6, every one of the
        2 * `num_beams` candidates may end, and hypotheses without an end of sequence are returned only for rows that
        have no other.
    """

    num_beams: _MANY_BEAMS = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: PositiveInt = 1
    rule: Literal["transformers", "t5x"] = "transformers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_return_sequences > self.num_beams:
            raise UserError(
                f"BeamSearch.num_return_sequences is {self.num_return_sequences}; a search with num_beams="
                f"{self.num_beams} returns at most {self.num_beams}."
            )
        if self.stop_strings:
            raise UserError("BeamSearch does not support stop_strings: use Greedy or Sampling.")
        if self.rule == "t5x" and self.early_stopping is not False:
            raise UserError(
                f"BeamSearch.early_stopping is {self.early_stopping!r}; rule='t5x' has its own rule and allows False."
            )

    @property
    def num_hypotheses(self) -> int:
        """See the base class."""
        return self.num_return_sequences

    @property
    def num_candidates(self) -> int:
        """See the base class."""
        return self.num_beams


STRATEGIES: dict[str, type[Strategy]] = {each.__name__: each for each in (Greedy, Sampling, BeamSearch)}


def strategy_of(**options: Any) -> Strategy:
    """Returns the strategy that flat options select, such as those of a command line; None is an option not given.

    More than one of `num_beams` selects `BeamSearch`; temperature, top_k, top_p, min_p or num_samples select
    `Sampling`; otherwise it is `Greedy`.

    >>> strategy_of(num_beams=4, length_penalty=0.6, min_new_tokens=None)  # doctest: +ELLIPSIS
    BeamSearch(..., num_beams=4, length_penalty=0.6, ...)

    Raises:
      UserError: Options of two strategies, an option without the one that selects its strategy, or a value that is not
        allowed.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("num_beams") == 1:  # As in transformers: no beam search.
        del given["num_beams"]
    owners = {name: _owner_of(name) for name in given}
    sampling, beams = ([name for name, owner in owners.items() if owner is kind] for kind in (Sampling, BeamSearch))
    if sampling and beams:
        raise UserError(
            f"{beams[0]} is an option of beam search, and {sampling[0]} one of sampling: give one of the two."
        )
    if beams and "num_beams" not in beams:
        raise UserError(f"{beams[0]} is an option of beam search: give num_beams above 1, too.")
    if sampling == ["seed"]:
        raise UserError("seed is an option of sampling, and greedy decoding draws nothing: give temperature, too.")
    return (BeamSearch if beams else Sampling if sampling else Greedy)(**given)


def strategy_from(record: dict[str, Any]) -> Strategy:
    """Returns the strategy of `Strategy.record`."""
    settings = dict(record)
    return STRATEGIES[settings.pop("strategy")](**settings)


def _owner_of(name: str) -> type[Strategy]:
    """Returns the class that declares an option."""
    fields = {kind: {field.name for field in dataclasses.fields(kind)} for kind in STRATEGIES.values()}
    if name in fields[Greedy]:
        return Strategy
    for kind in (Sampling, BeamSearch):
        if name in fields[kind]:
            return kind
    known = set.union(*fields.values())
    raise UserError(
        f"{name!r} is not an option of decoding; there are {', '.join(sorted(known))}.{nearest(name, known)}"
    )
