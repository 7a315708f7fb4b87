"""The row schema, its validation, and tables in and out of files.

A row is one response to one prompt: the string columns `prompt` and `response`, and once scored
one numeric column per objective (larger is better). Rows are counted from 0, as in every message
and every `row_id` column; the header of a csv file is not counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path

FORMATS = (".parquet", ".jsonl", ".jsonl.gz", ".csv", ".csv.gz")
WRITTEN_FORMATS = (".parquet", ".jsonl", ".csv")
TEXTS = ("prompt", "response", "chosen", "rejected")  # columns of text, whatever it looks like
HINTS = {  # what is usually wrong with a file that cannot be read
    ".jsonl": "; give one JSON object per line, in UTF-8",
    ".csv": "; give a header and as many fields in every row, texts in double quotes, in UTF-8",
    ".parquet": "; if a run wrote it, delete it and run again",
}
BLOCK_SIZE = 1 << 28  # bytes parsed at a time; no row of a text file can be longer
EXACT_INTEGERS = 1 << 53  # float64 holds every integer up to here


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a parquet, jsonl or csv file (the latter two may be gzipped).

    Raises:
      InputError: the file is missing, of an unknown format, unreadable, has no rows or two columns
        of the same name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a path that ends in {', '.join(FORMATS)}")
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv}
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in readers:
        raise InputError(f"{path}: unknown format; use one of {', '.join(FORMATS)}")
    try:
        table = readers[suffix](path)
    except (pa.ArrowException, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be read as {suffix[1:]}: {reason}{HINTS[suffix]}"
        ) from error
    if table.num_rows == 0:
        raise InputError(f"{path}: has no rows")
    names = table.column_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"{path}: more than one column {', '.join(map(repr, repeated))}; rename or remove one"
        )
    return table


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for number, field in enumerate(table.schema):  # categories of pandas, views of polars
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        plain = pa.string() if pa.types.is_string_view(plain) else plain
        if plain != field.type:
            table = table.set_column(number, field.name, table[number].cast(plain))
    return table


def _read_jsonl(path: Path) -> pa.Table:
    import pyarrow.json

    with pa.input_stream(path) as stream:
        table = pyarrow.json.read_json(stream, pyarrow.json.ReadOptions(block_size=BLOCK_SIZE))
    table.validate(full=True)  # that texts are UTF-8, which the reader does not look at
    return table


def _read_csv(path: Path) -> pa.Table:
    import pyarrow.csv

    blocks = pyarrow.csv.ReadOptions(block_size=BLOCK_SIZE)
    quoted_newlines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string()))
    with pa.input_stream(path) as stream:
        return pyarrow.csv.read_csv(stream, blocks, quoted_newlines, texts)


def check_writable(path: str | os.PathLike[str], formats: Sequence[str] = WRITTEN_FORMATS) -> None:
    """Raises InputError unless a file of one of `formats` can be written at `path`.

    Folders above it need not exist yet. For a command to call before its work.
    """
    path = Path(path)
    if path.suffix not in formats:
        raise InputError(f"{path}: cannot be written; the name must end in {', '.join(formats)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    parent = next(parent for parent in path.parents if os.path.lexists(parent))
    if not parent.is_dir():
        raise InputError(f"{path}: cannot be written, {parent} is not a folder; give another path")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written, {parent} is read-only; give another path")


def write_table(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Writes a table as parquet, jsonl or csv by the suffix of `path`, atomically.

    Raises:
      InputError: nothing can be written there, or a column holds lists and the format is csv.
    """
    import pyarrow.csv
    import pyarrow.parquet

    path = Path(path)
    check_writable(path)
    check_holds(path, table)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, temporary, compression="zstd")
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            with open(temporary, "w", encoding="utf-8") as file:
                for row in table.to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")


def check_holds(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Raises InputError if a column of the table holds lists and the format of `path` is csv."""
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if nested and Path(path).suffix == ".csv":
        raise InputError(
            f"{path}: csv cannot hold the lists or structs of column {nested[0]!r}; "
            "write .parquet or .jsonl"
        )


def _plain(value: object) -> float | str:
    """A decimal as a number; what JSON has no form for, such as a date, as text."""
    return float(value) if isinstance(value, Decimal) else str(value)


def check_columns(table: pa.Table, names: Sequence[str], source: str | os.PathLike[str]) -> None:
    """Raises InputError naming the columns of `names` that `table` lacks."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        there = [name for name in table.column_names if name != "source_row"]  # which is ours
        raise InputError(
            f"{source}: no column {', '.join(map(repr, missing))}; "
            f"the file has {', '.join(map(repr, there))}"
        )


def check_texts(
    table: pa.Table,
    source: str | os.PathLike[str],
    names: Sequence[str] = ("prompt", "response"),
) -> None:
    """Checks the string columns `names`.

    Raises:
      InputError: a column is missing or not text, or a text is missing or blank.
    """
    check_columns(table, names, source)
    for name in names:
        column = table[name]
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            raise InputError(
                f"{source}: column {name!r} holds {column.type}, not text; give one text per row"
            )
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True)
        rows = np.flatnonzero(blank.to_numpy())
        if rows.size:
            raise InputError(
                f"{source}: row {rows[0]}: {name} is empty "
                f"({rows.size} such rows); remove these rows or fill them in"
            )


def drop_duplicates(table: pa.Table) -> pa.Table:
    """Keeps the first of the rows with the same prompt and response, in order."""
    first: dict[tuple[str, str], int] = {}
    pairs = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)
    for row, pair in enumerate(pairs):
        first.setdefault(pair, row)
    return table.take(pa.array(list(first.values()), pa.int64()))


def source_rows(table: pa.Table) -> np.ndarray | None:
    """The numbers that the table's rows have in their source, int64, where it tells them.

    For messages: a row of a public set may have become several rows, or none.
    """
    return table["source_row"].to_numpy() if "source_row" in table.column_names else None


def rewards_matrix(
    table: pa.Table,
    objectives: Sequence[str],
    source: str | os.PathLike[str],
    row_ids: Sequence[int] | None = None,
) -> np.ndarray:
    """The columns named `objectives` as rewards `[num_rows, num_objectives]`.

    They are float64, but integers where one is beyond 2**53, so that no two of them merge.

    Args:
      row_ids: `[num_rows]`, what messages call the rows; by default they count from 0.

    Raises:
      InputError: a column is missing, or a value is missing, not a number, NaN or infinite; the
        message names the file, the row and the column. Also for integers beyond 2**53 beside
        fractions, which no type holds both.
    """
    check_columns(table, objectives, source)
    columns = [_numbers(table[name], name, source, row_ids) for name in objectives]
    rewards = np.stack(columns, axis=1)
    wide = next((n for n, c in zip(objectives, columns, strict=True) if _is_wide(c)), None)
    if wide is None:
        rewards = rewards.astype(np.float64, copy=False)
    elif rewards.dtype.kind == "f":
        raise InputError(
            f"{source}: {wide!r} holds integers beyond 2**53, which cannot be told apart beside "
            "the other objectives' numbers; divide them or make all objectives signed integers"
        )
    bad_rows, bad_columns = np.nonzero(~np.isfinite(rewards))
    if bad_rows.size:
        row, name = bad_rows[0], objectives[bad_columns[0]]
        raise InputError(
            f"{source}: row {row_name(row, row_ids)}: {name!r} is "
            f"{rewards[row, bad_columns[0]]}, not a finite "
            f"number ({bad_rows.size} such values); remove or rescore these rows"
        )
    return rewards


def check_ranges(
    rewards: np.ndarray, objectives: Sequence[str], source: str | os.PathLike[str]
) -> None:
    """Raises InputError naming an objective that has the same value in every row."""
    for column in np.flatnonzero(np.ptp(rewards, axis=0) == 0):
        raise InputError(
            f"{source}: objective {objectives[column]!r} is {rewards[0, column]} in every row; "
            "it cannot be traded against others: remove it, mend its scorer or give more rows"
        )


def row_name(row: int, row_ids: Sequence[int] | None) -> int:
    """What messages call a row: its number in `row_ids`, or without them its place."""
    return row if row_ids is None else row_ids[row]


def _numbers(
    column: pa.ChunkedArray,
    name: str,
    source: str | os.PathLike[str],
    row_ids: Sequence[int] | None,
) -> np.ndarray:
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        raise InputError(
            f"{source}: row {row_name(row, row_ids)}: {name!r} is missing "
            f"({column.null_count} such rows); score or remove these rows"
        )
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return column.to_numpy()
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy()
    values = column.to_pylist()
    row = next((row for row, value in enumerate(values) if not _is_number(value)), 0)
    raise InputError(
        f"{source}: row {row_name(row, row_ids)}: {name!r} is {values[row]!r}, not a number; "
        "an objective needs one number per row"
    )


def _is_wide(column: np.ndarray) -> bool:
    """Whether the column holds an integer that float64 may merge with its neighbours."""
    largest = max(int(column.max()), -int(column.min())) if column.dtype.kind in "iu" else 0
    return largest > EXACT_INTEGERS


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
