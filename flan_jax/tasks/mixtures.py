"""Registering mixtures: members and rates are checked, and nothing that is held out is trained on."""

import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flan_jax.data.holdout import Facts, HoldOut, in_words, leaks, parted, record, ways
from flan_jax.data.rates import ProportionalRate, ShareUnit, StatedShare
from flan_jax.errors import UnknownNameError, UserError
from flan_jax.tasks import registration
from flan_jax.tasks.declare import require_name
from flan_jax.tasks.members import tasks_of

Rate = float | Callable[[Any], float]
"""A weight, or a function from the SeqIO task to one."""


def register_mixture(
    name: str,
    members: Sequence[str | tuple[str, Rate | None]],
    *,
    default_rate: Rate | None = None,
    hold_out: HoldOut | None = None,
    notes: Iterable[str] = (),
) -> Any:
    """Adds a mixture to SeqIO's registry.

    Args:
      name: Of the mixture.
      members: Names of registered tasks and mixtures, or pairs of a name and its rate. A mixture among them needs a
        number as its rate, which its members share (SeqIO's rule).
      default_rate: For members without a rate; None for their numbers of examples.
      hold_out: Tasks, clusters and corpora that must not be trained on; checked against the metadata of all members.
      notes: Remarks for its reader, such as the tasks of a published list that are not in it; saved in the manifest
        and shown.

    Returns:
      The `seqio.Mixture`.

    Raises:
      UnknownNameError: A member, or a task that is held out, is not registered.
      UserError: No members, a member given twice, an invalid rate, vocabularies that differ, or a member that leaks
        what is held out.
    """
    require_name(name, also="+")  # SeqIO's rule is for tasks alone, and T0 has mixtures with a plus.
    registration.require_free(name)
    default = ProportionalRate() if default_rate is None else default_rate
    pairs = [(member, None) if isinstance(member, str) else member for member in members]
    rated = [(member, default if rate is None else rate) for member, rate in pairs]
    _check_members(name, rated)
    if hold_out is not None:
        facts = _facts(member for member, _ in rated)
        registration.state.hold_outs[name] = _require_held_out(name, hold_out=hold_out, members=facts)
    registration.state.notes[name] = tuple(notes)
    registration.remember(name)
    return registration.seqio_registries()[1].add(name, rated)


def register_mixture_with_share(
    name: str, *, main: str, share_of: str, share: float, unit: ShareUnit, hold_out: HoldOut | None = None
) -> Any:
    """Adds a mixture of two to SeqIO's registry: a task or mixture, and a stated share of another.

    To state a second share, give such a mixture as `main` of another. In SeqIO's own pipeline the share is one of
    examples, whatever the unit; exports respect the unit.

    Args:
      name: Of the mixture.
      main: The rest; its members keep their proportions.
      share_of: The task or mixture whose share is stated.
      share: Above 0 and below 1.
      unit: "examples", or "tokens" of inputs and targets together.
      hold_out: As in `register_mixture`.

    Returns:
      The `seqio.Mixture`.

    Raises:
      UnknownNameError: A member is not registered.
      UserError: An invalid share, or the two have a task in common.
    """
    try:
        stated = StatedShare(share, unit=unit)
    except UserError as error:
        raise UserError(f"Mixture {name!r}, the share of {share_of!r}: {error}") from error
    both = [{task.name for task in tasks_of(registration.mixture_or_task(member))} for member in (main, share_of)]
    common = sorted(both[0] & both[1])
    if common:
        more = f" and {len(common) - 1} more tasks" if len(common) > 1 else ""
        raise UserError(
            f"Mixture {name!r}: {common[0]!r}{more} is in {main!r} and in {share_of!r}, so that the share of the "
            "latter could be read in two ways. Leave it out of one of them."
        )
    rest = StatedShare(1.0 - share, unit=unit)
    return register_mixture(name, [(main, rest), (share_of, stated)], hold_out=hold_out)


def hold_out_of(name: str) -> dict[str, Any]:
    """Returns what a mixture holds out by its definition, with the leaks that it allows; {} when nothing."""
    return registration.state.hold_outs.get(name, {})


def notes_of(name: str) -> tuple[str, ...]:
    """Returns the notes of a mixture's definition and of the mixtures in it, each once; () for a task."""
    members = getattr(registration.mixture_or_task(name), "rate_per_task_name", ())
    own = registration.state.notes.get(name, ())
    return tuple(dict.fromkeys([*own, *(note for inner in members for note in notes_of(inner))]))


def _facts(providers: Iterable[str]) -> list[Facts]:
    """The facts that hold-out checks, of all tasks in tasks and mixtures."""
    tasks = {task.name: task for name in providers for task in tasks_of(registration.mixture_or_task(name))}
    return [registration.of_seqio(task).metadata.facts(name) for name, task in sorted(tasks.items())]


def _require_held_out(mixture: str, *, hold_out: HoldOut, members: Sequence[Facts]) -> dict[str, Any]:
    """Refuses a mixture whose members leak what it holds out, before any data are read.

    Returns:
      The hold-out with the leaks that it allows, for the manifest.

    Raises:
      UserError: A leak that `allow_leak` does not name.
    """
    # Clusters are held out by name only: a new task of a cluster that is trained on is a setting of its own.
    found = leaks(members, hold_out=hold_out, tasks=[facts.of_any_cluster for facts in _facts(hold_out.tasks)])
    refused, allowed = parted(found, allow_leak=hold_out.allow_leak)
    if refused:
        raise UserError(
            f"Mixture {mixture!r} trains on what it holds out: {in_words(refused)}. Leave these tasks out, or accept "
            f"the leak by name: allow_leak={ways(refused)}."
        )
    return record(hold_out, allowed=allowed)


def _check_members(name: str, rated: Sequence[tuple[str, Rate]]) -> None:
    tasks, _ = registration.seqio_registries()
    if not rated:
        raise UserError(f"Mixture {name!r} has no members.")
    if all(rate == 0 for _, rate in rated):
        raise UserError(f"Mixture {name!r}: no member has a weight above 0, so there is nothing to draw.")
    seen: set[str] = set()
    for member, rate in rated:
        if member in seen:
            raise UserError(f"Mixture {name!r}: {member!r} is a member twice; give it once, with the sum of its rates.")
        seen.add(member)
        if not registration.is_registered(member):
            unknown = registration.unknown("member", member, registration.names())
            raise UnknownNameError(f"Mixture {name!r}: {unknown}")
        is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if member not in tasks.names() and not is_number:
            raise UserError(f"Mixture {name!r}: its member {member!r} is a mixture and needs a number as its rate.")
        if not callable(rate) and not (is_number and 0 < rate < float("inf")):
            raise UserError(
                f"Mixture {name!r}: the rate of {member!r} must be a number above 0, got {rate!r}; remove the member "
                "instead."
            )
    _check_vocabularies(name, [registration.mixture_or_task(member) for member, _ in rated])


def _check_vocabularies(name: str, members: Sequence[Any]) -> None:
    first, *others = members
    for other in others:
        for feature, expected in first.output_features.items():
            got = other.output_features.get(feature)
            if got is None or got.vocabulary is expected.vocabulary:
                continue
            if got.vocabulary != expected.vocabulary:
                raise UserError(
                    f"Mixture {name!r}: {first.name!r} and {other.name!r} differ in the vocabulary of {feature!r}. "
                    "Register the members of a mixture under one vocabulary."
                )
