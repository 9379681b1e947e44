"""One row of a task as people read it: its texts, the tokens of each feature, and the numbers of a packed row."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def rendering(rendering: Mapping[str, Any]) -> RenderableType:
    """Returns the texts of an example; see `interface.Rendering` for its fields."""
    named = f" {rendering['name']!r}" if rendering["name"] else ""
    inverted = ", inverted" if rendering["direction"] == "inverted" else ""
    lists = {side: " | ".join(rendering[side]) for side in ("options", "references") if rendering[side]}
    grid = Table(box=box.SIMPLE, show_header=False)
    for label, text in {"inputs": rendering["inputs"], "targets": rendering["targets"], **lists}.items():
        grid.add_row(Text(label, style="dim"), Text(text, overflow="fold"))
    for note in rendering.get("notes", ()):
        grid.add_row(Text("note", style="yellow"), Text(note))
    return Group(Text(f"template {rendering['template']}{named}{inverted}", style="bold"), grid)


def tokens(side: str, tokens: Mapping[str, Any]) -> RenderableType:
    """Returns the pieces of a side, each with its id."""
    text = Text(f"{len(tokens['ids'])} tokens of the {side}: ", style="bold")
    for number, piece in zip(tokens["ids"], tokens["pieces"], strict=True):
        text.append(piece, style="not bold cyan").append(f" {number}  ", style="not bold dim")
    return text


def numbers(values: Sequence[float]) -> str:
    """Returns the values of a feature; padding zeros at its end are counted instead.

    >>> numbers([3, 1, 0, 0])
    '3 1 + 2 x 0'
    """
    used = len(values)
    while used and not values[used - 1]:
        used -= 1
    padding = f" + {len(values) - used} x 0" if used < len(values) else ""
    return " ".join(f"{value:g}" for value in values[:used]) + padding
