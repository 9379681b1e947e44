"""The saved position of a training feed: plain JSON, a few bytes per stream.

    {"version": 1, "streams": [[block, row], ...], "feed": {"seed": 0, "batch_size": 64, ...}}

"feed" identifies the feed; restoring into a different feed is an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.errors import UserError

VERSION = 1


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the state of the whole feed from those of its processes at the same step."""
    assert states and all(state["feed"] == states[0]["feed"] for state in states)
    streams = zip(*(state["streams"] for state in states), strict=True)
    known = [next((position for position in positions if position is not None), None) for positions in streams]
    return {**states[0], "streams": known}


def check(state: Mapping[str, Any], *, identity: Mapping[str, Any], owned: Iterable[int]) -> None:
    """Refuses a state that does not belong to a feed.

    Raises:
      UserError: the state is of another version or of another feed, or lacks one of the `owned` streams.
    """
    if state.get("version") != VERSION:
        raise UserError(
            f"The saved data position has version {state.get('version')!r}; this program reads version {VERSION}."
        )
    saved = state["feed"]
    differing = [name for name in identity if saved.get(name) != identity[name]]
    if differing:
        shown = "; ".join(f"{name} was {saved.get(name)!r} and is {identity[name]!r}" for name in differing)
        raise UserError(
            f"The saved data position belongs to another feed: {shown}. Give the values of the run that saved it, or "
            "start a new run directory."
        )
    missing = [stream for stream in owned if state["streams"][stream] is None]
    if missing:
        raise UserError(
            f"The saved data position lacks streams {missing}, which another process owned: merge the states of all "
            "processes with feed_state.merge before saving."
        )
