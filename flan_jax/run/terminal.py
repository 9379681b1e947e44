"""Where verbs print their tables."""

from rich.console import Console

PIPED_COLUMNS = 1000


def console() -> Console:
    """Returns the terminal; for a file or a pipe one with lines as long as a table needs, so that nothing is folded."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPED_COLUMNS)
