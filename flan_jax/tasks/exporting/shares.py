"""Stated shares of a mixture: "5 % of the examples", "5 % of the tokens".

Published shares of pretraining data are of either kind, and a bare rate is ambiguous: OPT-IML (arXiv 2212.12017)
adds 5 % of examples, GLM-130B (arXiv 2210.02414) instruction data of 5 % of tokens. Here a share has a unit, becomes a
rate by the token counts that the export measured, and is reported in the manifest. `mixtures` registers such mixtures.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from flan_jax.data.manifest import RealizedShare
from flan_jax.data.rates import Members, ShareUnit, StatedShare, flatten, rates_of_shares, shares
from flan_jax.errors import UserError


def is_stated(mixture: Any) -> bool:
    """Returns whether all rates of a SeqIO mixture are stated shares."""
    return all(isinstance(rate, StatedShare) for rate in mixture.rate_per_task_name.values())


def stated_rates(
    mixture: Any, nested: Mapping[str, Members], *, counted: Collection[str], mean_tokens: Mapping[str, float] | None
) -> Members:
    """Returns a mixture of stated shares as numbers: pairs of a nested mixture and the rate at which it is drawn.

    Args:
      mixture: A SeqIO mixture whose rates are stated shares.
      nested: Each member as numbers.
      counted: The tasks that are exported; the others are left out, and their member's share goes to the rest of it.
      mean_tokens: Mean tokens of an example of each counted task; None when they were not measured.

    Raises:
      UserError: A share of tokens, and a task whose tokens were not measured.
    """
    stated: dict[str, float] = mixture.rate_per_task_name
    # All members have the same unit: `mixtures` registers no others.
    unit: ShareUnit = next(rate.unit for rate in stated.values() if isinstance(rate, StatedShare))
    available: dict[str, dict[str, float]] = {}
    for name, inner in nested.items():
        flat = {task: rate for task, rate in flatten(inner).items() if task in counted} if inner else {}
        if flat:
            available[name] = shares(flat)
    unknown = sorted({task for flat in available.values() for task in flat} - (mean_tokens or {}).keys())
    if unit == "tokens" and unknown:
        raise UserError(
            f"The mixture {mixture.name!r} states shares of tokens, and the tokens of {unknown[0]!r} are not known "
            "before it is exported. Run `flan-jax export`, or name the directory of an export."
        )
    means = {
        name: sum(rate * (mean_tokens or {}).get(task, 1.0) for task, rate in flat.items())
        for name, flat in available.items()
    }
    rates = rates_of_shares({name: float(stated[name]) for name in available}, unit=unit, mean_tokens=means)
    return [(list(flat.items()), rates[name]) for name, flat in available.items()]


def realized(
    provider: Any, *, rates: Mapping[str, float], mean_tokens: Mapping[str, float]
) -> tuple[RealizedShare, ...]:
    """Returns the stated shares of a mixture and of the mixtures in it, with their realized values.

    Args:
      provider: A SeqIO mixture or task.
      rates: Flattened rate of each task.
      mean_tokens: Mean tokens of an example of each task.
    """
    found = []
    for mixture in _with_shares(provider):
        tasks = {
            # SeqIO has no public name for it; its version is bounded in pyproject.toml.
            name: [task.name for task in _tasks(mixture._task_map[name]) if task.name in rates]
            for name in mixture.rate_per_task_name
        }
        examples = {name: sum(rates[task] for task in of) for name, of in tasks.items() if of}
        tokens = {name: sum(rates[task] * mean_tokens[task] for task in of) for name, of in tasks.items() if of}
        found += [
            RealizedShare(
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
    """The mixtures with stated shares: the given one, then those in it, each once."""
    seen: dict[str, Any] = {}

    def visit(mixture: Any) -> None:
        if hasattr(mixture, "rate_per_task_name") and mixture.name not in seen:
            seen[mixture.name] = mixture
            for name in mixture.rate_per_task_name:
                visit(mixture._task_map[name])

    visit(provider)
    yield from (mixture for mixture in seen.values() if is_stated(mixture))
