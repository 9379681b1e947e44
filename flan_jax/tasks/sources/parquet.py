"""Parquet files to rows; needs the `tasks` extra."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, BinaryIO

from flan_jax.errors import UserError
from flan_jax.tasks import lazy
from flan_jax.tasks.sources.rows import BadRow, Record, plain_record, unique_columns
from flan_jax.tasks.sources.streams import open_bytes

CANNOT_BE_READ = "cannot be read"
BATCH_ROWS = 1024


def read_parquet(
    stream: BinaryIO, path: str, *, whole_numbers: Collection[str] | None = None
) -> Iterator[Record | BadRow]:
    """Yields the rows of a Parquet file. Places are "file: row N", counted from 0.

    Args:
      stream: Of the file.
      path: Of the file, for messages.
      whole_numbers: Columns whose floats are integers, as `nullable_integers` returns them; None for the file's own.

    Raises:
      UserError: Not a Parquet file, a damaged one, or two columns of one name.
    """
    file = open_parquet(stream, path)
    unique_columns(file.schema_arrow.names, where=path)
    if whole_numbers is None:
        with_gaps, fractional = _float_columns(file, path)
        whole_numbers = with_gaps - fractional
    index = 0
    for batch in _batches(file, path):
        for row in _rows_of(batch):
            place = f"{path}: row {index}"
            index += 1
            if isinstance(row, Exception):
                yield BadRow(CANNOT_BE_READ, f"the row cannot be read ({row})", place)
                continue
            for name in whole_numbers:
                # NaN, which pandas writes for a missing number in some versions, stays a bad row.
                if isinstance(row.get(name), float) and row[name].is_integer():
                    row[name] = int(row[name])
            yield plain_record(row, place=place)


def nullable_integers(paths: Iterable[str]) -> set[str]:
    """Returns the columns of floats that hold whole numbers and nulls: pandas stores integers with gaps like this.

    Args:
      paths: Of the files of a split. All decide, since not each of them need have a gap.

    Raises:
      UserError: As `read_parquet`.
    """
    gaps, fractions = set[str](), set[str]()
    for path in paths:
        with open_bytes(path) as stream:
            with_gaps, fractional = _float_columns(open_parquet(stream, path), path)
            gaps, fractions = gaps | with_gaps, fractions | fractional
    return gaps - fractions


def open_parquet(stream: BinaryIO, path: str) -> Any:
    """Returns the `pyarrow.parquet.ParquetFile` of a stream.

    Raises:
      UserError: Not a Parquet file.
    """
    try:
        return lazy.import_parquet().ParquetFile(stream)
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: not a Parquet file ({error}).") from error


def _float_columns(file: Any, path: str) -> tuple[set[str], set[str]]:
    """Returns the columns of floats that have nulls or NaN, and those that have fractions."""
    import pyarrow
    from pyarrow import compute

    floats = [field.name for field in file.schema_arrow if pyarrow.types.is_floating(field.type)]
    with_gaps, fractional = set[str](), set[str]()
    # Only these columns are read, and none when there are no floats.
    for batch in _batches(file, path, columns=floats) if floats else ():
        for name in floats:
            column = batch.column(name).cast(pyarrow.float64())  # There is no arithmetic of 16 bits.
            numbers = column.filter(compute.is_finite(column))
            if len(numbers) < len(column):
                with_gaps.add(name)
            if not compute.all(compute.equal(compute.floor(numbers), numbers), min_count=0).as_py():
                fractional.add(name)
    return with_gaps, fractional


def _batches(file: Any, path: str, *, columns: list[str] | None = None) -> Iterator[Any]:
    try:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: the Parquet file cannot be read ({error}). Get or write it again.") from error


def _shortest(batch: Any) -> Any:
    """Returns a batch whose floats of 32 and 16 bits are the shortest decimals: 0.1, not 0.10000000149011612."""
    import pyarrow

    for index, field in enumerate(batch.schema):
        if pyarrow.types.is_float32(field.type) or pyarrow.types.is_float16(field.type):
            kind = field.type.to_pandas_dtype()
            values = [None if v is None else float(str(kind(v))) for v in batch.column(index).to_pylist()]
            batch = batch.set_column(index, field.name, pyarrow.array(values, pyarrow.float64()))
    return batch


def _rows_of(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """Yields the rows of a batch, with an exception in place of one that Python cannot represent."""
    try:
        yield from _shortest(batch).to_pylist()
        return
    except (ValueError, OverflowError) as error:  # A text that is not UTF-8, a date after the year 9999.
        if batch.num_rows == 1:
            yield error
            return
    for index in range(batch.num_rows):
        yield from _rows_of(batch.slice(index, 1))
