"""A member's share of a mixture said directly: "5 % of the examples", "5 % of the tokens".

Published shares of pretraining data are of either kind, and an opaque rate says neither: OPT-IML (arXiv 2212.12017) adds
5 % of examples, GLM-130B (arXiv 2210.02414) instruction data of 5 % of tokens. Here a share is stated with its unit,
computed from what exporting measured, and told by the manifest. Registering such a mixture is `registry`'s.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from flan_jax.data.manifest import RealisedShare
from flan_jax.data.rates import Members, ShareUnit, StatedShare, flatten, rates_of_shares, shares
from flan_jax.errors import UserError


def is_stated(mixture: Any) -> bool:
    """Whether all of a SeqIO mixture's rates are stated shares."""
    return all(isinstance(rate, StatedShare) for rate in mixture.rate_per_task_name.values())


def stated_rates(
    mixture: Any, nested: Mapping[str, Members], *, counted: Collection[str], mean_tokens: Mapping[str, float] | None
) -> Members:
    """Returns a mixture of stated shares as numbers: pairs of a nested mixture and the rate at which it is drawn.

    Args:
      mixture: a SeqIO mixture whose rates are stated shares.
      nested: each member as numbers.
      counted: the tasks that are there; what is not is left out, so that the others make up its member's whole share.
      mean_tokens: of an example of each counted task; None when nobody measured.

    Raises:
      UserError: a share of tokens, and a task whose tokens nobody measured.
    """
    stated: dict[str, float] = mixture.rate_per_task_name
    unit: ShareUnit = next(rate.unit for rate in stated.values() if isinstance(rate, StatedShare))
    there: dict[str, dict[str, float]] = {}
    for name, inner in nested.items():
        flat = {task: rate for task, rate in flatten(inner).items() if task in counted} if inner else {}
        if flat:
            there[name] = shares(flat)
    unknown = sorted({task for flat in there.values() for task in flat} - (mean_tokens or {}).keys())
    if unit == "tokens" and unknown:
        raise UserError(
            f"The mixture {mixture.name!r} states shares of tokens, and the tokens of {unknown[0]!r} are not known "
            "before it is exported. Run `flan-jax export`, or name the directory of an export."
        )
    means = {
        name: sum(rate * (mean_tokens or {}).get(task, 1.0) for task, rate in flat.items())
        for name, flat in there.items()
    }
    rates = rates_of_shares({name: float(stated[name]) for name in there}, unit=unit, mean_tokens=means)
    return [(list(flat.items()), rates[name]) for name, flat in there.items()]


def realised(
    provider: Any, *, rates: Mapping[str, float], mean_tokens: Mapping[str, float]
) -> tuple[RealisedShare, ...]:
    """Returns the stated shares of a mixture and of those within it, with what they come to.

    Args:
      provider: a SeqIO mixture or task.
      rates: of each task in the draws, flattened.
      mean_tokens: of an example of each of them.
    """
    found = []
    for mixture in _with_shares(provider):
        tasks = {
            name: [task.name for task in _tasks(mixture._task_map[name]) if task.name in rates]
            for name in mixture.rate_per_task_name
        }
        examples = {name: sum(rates[task] for task in of) for name, of in tasks.items() if of}
        tokens = {name: sum(rates[task] * mean_tokens[task] for task in of) for name, of in tasks.items() if of}
        found += [
            RealisedShare(
                mixture=mixture.name,
                member=name,
                unit=mixture.rate_per_task_name[name].unit,
                share=float(mixture.rate_per_task_name[name]),
                of_examples=of_examples,
                of_tokens=tokens[name] / sum(tokens.values()),
            )
            for name, of_examples in shares(examples).items()
        ]
    return tuple(found)


def _tasks(provider: Any) -> Iterable[Any]:
    return provider.tasks if hasattr(provider, "rate_per_task_name") else (provider,)


def _with_shares(provider: Any) -> Iterator[Any]:
    """The mixtures with stated shares: the one given, then those within it, each once."""
    seen: dict[str, Any] = {}

    def visit(mixture: Any) -> None:
        if hasattr(mixture, "rate_per_task_name") and mixture.name not in seen:
            seen[mixture.name] = mixture
            for name in mixture.rate_per_task_name:
                visit(mixture._task_map[name])

    visit(provider)
    yield from (mixture for mixture in seen.values() if is_stated(mixture))
