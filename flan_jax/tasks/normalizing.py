"""A task's normalizer, applied to one row of its source; its exceptions are classified by whose code raised them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from flan_jax.errors import UserError, in_user_code, raised_outside
from flan_jax.names import nearest, shortened
from flan_jax.tasks.declare import Normalizer, TemplatedTask
from flan_jax.tasks.sources.rows import BadRow, Record, Row, Unusable
from flan_jax.tasks.time_limit import limited

DROPPED_BY_NORMALIZER = "dropped by the normalizer"
LACKS_A_FIELD = "lacks a field"
REFUSED = "refused by the normalizer"
FAILED = "the normalizer failed"


class _NoField(KeyError):
    """A normalizer asked a row for a field that it does not have."""

    __str__ = Exception.__str__


class _Fields(dict[str, object]):
    """A row whose absent fields differ from any other KeyError."""

    def __missing__(self, field: str) -> object:
        raise _NoField(field)


def apply_normalizer(task: TemplatedTask, record: Record, dropped: Counter[str]) -> Iterable[Row]:
    """Returns the rows that a task's normalizer makes of a source's row; dropped ones are counted.

    Raises:
      UserError: The normalizer refuses the row, lacks a field of it or fails, and the source refuses bad rows.
    """
    rows = normalized(task, record)
    if isinstance(rows, BadRow):
        task.source.refuse(rows, dropped=dropped)
        return ()
    if None in rows:
        dropped[DROPPED_BY_NORMALIZER] += sum(row is None for row in rows)
    return tuple(row for row in rows if row is not None)


def normalized(task: TemplatedTask, record: Record) -> tuple[Row | None, ...] | BadRow:
    """Returns the rows that a task's normalizer makes of a source's row, None for one that it leaves out."""
    if task.normalizer is None:
        return (record.row,)
    with limited(task.name, record.place):
        return _normalized(task.normalizer, task, record)


def _normalized(normalizer: Normalizer, task: TemplatedTask, record: Record) -> tuple[Row | None, ...] | BadRow:
    try:
        result = normalizer(_Fields(record.row))
        rows = (result,) if result is None or isinstance(result, Mapping) else tuple(result)
        rows = rows or (None,)  # No row at all is a dropped one, so that it is counted.
        return tuple(None if row is None else dict(row) for row in rows)
    except _NoField as error:
        detail = f"the normalizer of task {task.name!r} needs the field {str(error)!r}."
        detail += f"{nearest(str(error), record.row)} Fields: {', '.join(record.row)}"
        return BadRow(LACKS_A_FIELD, detail, record.place)
    except Exception as error:
        failed = f"the normalizer of task {task.name!r} failed on {shortened(record.row)}"
        if isinstance(error, UserError):
            reason = error.reason if isinstance(error, Unusable) else REFUSED
            return BadRow(reason, f"{failed}: {str(error).removesuffix('.')}", record.place)
        if raised_outside(error, caller=__file__):
            # Most often a row of another kind, such as a text where a number was expected.
            return BadRow(FAILED, f"{failed}: {in_user_code(error)}", record.place, error)
        error.add_note(f"{record.place}: {failed}")
        raise
