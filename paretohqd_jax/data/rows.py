"""The row schema, its validation, and tables in and out of files.

A row is one response to one prompt: the string columns `prompt` and `response`, and once scored
one numeric column per objective (larger is better). Rows are counted from 0, as in every message
and every `row_id` column; the header of a csv file is not counted.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.columns import table_of
from paretohqd_jax.data.text_files import read_csv_texts, read_json_rows, with_numbers
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path

FORMATS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz")
WRITTEN_FORMATS = (".parquet", ".jsonl", ".csv")
TEXTS = ("prompt", "response", "chosen", "rejected")  # columns of text, whatever it looks like
SELECTION_COLUMNS = ("preference_id", "row_id", "rank", "distance")
# Every column that the tables of a run or a command may have beside the objectives: no objective
# can have such a name.
OUR_COLUMNS = frozenset(
    (*TEXTS, *SELECTION_COLUMNS, "source_row", "chosen_row", "rejected_row", "split", "prompt_id",
     "answerer", "family", "policy", "token_ids", "num_tokens", "truncated", "periodic_tail",
     "collapsed", "source", "review")
)  # fmt: skip
HINTS = {  # what is usually wrong with a file that cannot be read
    ".jsonl": "; give one JSON object per line, in UTF-8",
    ".json": "; give one array of JSON objects, or one object per line, in UTF-8",
    ".csv": "; give a header and as many fields in every row, texts in double quotes, in UTF-8",
    ".parquet": "; if a run wrote it, delete it and run again",
}


def read_table(path: str | os.PathLike[str], texts: Sequence[str] = TEXTS) -> pa.Table:
    """Reads a parquet, jsonl, json or csv file (all but the first may be gzipped).

    Args:
      path: the file.
      texts: the columns of a csv that are texts even if they look like numbers.

    Raises:
      InputError: the file is missing, of an unknown format, unreadable, has no rows or two columns
        of the same name.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give a path that ends in {', '.join(FORMATS)}")
    if format_of(path) not in HINTS:
        raise InputError(f"{path}: unknown format; use one of {', '.join(FORMATS)}")
    return read_files([path], texts)


def format_of(path: Path) -> str:
    """The suffix of a file's name, before that of gzip."""
    return Path(path.name.removesuffix(".gz")).suffix


def read_files(paths: Sequence[Path], texts: Sequence[str] = TEXTS) -> pa.Table:
    """The rows of files of one format, one after the other; arguments and errors of `read_table`.

    A column has one type in all of them.
    """
    suffix = format_of(paths[0])
    place = paths[0] if len(paths) == 1 else paths[0].parent
    if suffix == ".parquet":
        parts = [_read(path, suffix, _read_parquet, path) for path in paths]
    elif suffix == ".csv":
        parts = [_read(path, suffix, read_csv_texts, path) for path in paths]
    else:
        rows = [row for path in paths for row in _read(path, suffix, read_json_rows, path)]
        parts = [_read(place, suffix, table_of, rows, "; mend that row")]
    table = parts[0]
    if len(parts) > 1:
        concatenated = partial(pa.concat_tables, promote_options="permissive")
        table = _read(place, suffix, concatenated, parts)
    if table.num_rows == 0:
        raise InputError(f"{place}: has no rows")
    names = table.column_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"{place}: more than one column {', '.join(map(repr, repeated))}; rename or remove one"
        )
    return with_numbers(table, texts) if suffix == ".csv" else table


def _read(
    path: Path, suffix: str, reader: Callable[[Any], Any], content: Any, hint: str | None = None
) -> Any:
    """`reader(content)`; an InputError names `path` if that fails, and `hint` or that of HINTS."""
    try:
        return reader(content)
    except (pa.ArrowException, OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        reason = str(error).splitlines()[0]
        hint = HINTS[suffix] if hint is None else hint
        raise InputError(f"{path}: cannot be read as {suffix[1:]}: {reason}{hint}") from error


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet

    return plain_texts(pyarrow.parquet.read_table(path))


def plain_texts(table: pa.Table) -> pa.Table:
    """The table with texts of other types, categories of pandas and views of polars, as strings.

    Raises pa.ArrowInvalid for a text that is not UTF-8, which nothing else looks at.
    """
    table.validate(full=True)
    for number, field in enumerate(table.schema):
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        plain = pa.string() if pa.types.is_string_view(plain) else plain
        if plain != field.type:
            table = table.set_column(number, field.name, table[number].cast(plain))
    return table


def check_writable(path: str | os.PathLike[str], formats: Sequence[str] = WRITTEN_FORMATS) -> None:
    """Raises InputError unless a file of one of `formats` can be written at `path`.

    Folders above it need not exist yet. For a command to call before its work.
    """
    path = Path(path)
    if path.suffix not in formats:
        raise InputError(f"{path}: cannot be written; the name must end in {', '.join(formats)}")
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file in it")
    parent = next(parent for parent in path.parents if os.path.lexists(parent))
    if not parent.is_dir():
        raise InputError(f"{path}: cannot be written, {parent} is not a folder; give another path")
    try:  # what may be written is known by writing: such as nothing in /proc, even by root
        # By a name of its own: another process may be trying the same, or be writing the file.
        with tempfile.NamedTemporaryFile(dir=parent, prefix=".tmp-", suffix=path.name):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written in {parent} ({error.strerror}); give another path"
        ) from error


def write_table(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Writes a table as parquet, jsonl or csv by the suffix of `path`, atomically.

    Raises:
      InputError: nothing can be written there, or the format cannot hold a column, such as csv
        one of lists.
    """
    import pyarrow.csv
    import pyarrow.parquet

    path = Path(path)
    check_writable(path)
    check_holds(path, table)
    with atomic_path(path) as temporary:
        try:
            if path.suffix == ".parquet":
                pyarrow.parquet.write_table(table, temporary, compression="zstd")
            elif path.suffix == ".csv":
                pyarrow.csv.write_csv(table, temporary)
            else:
                with open(temporary, "w", encoding="utf-8") as file:
                    for row in table.to_pylist():
                        file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: cannot be written: {reason}; write .jsonl") from error


def _plain(value: object) -> float | int | str:
    """A decimal as a number, exact if whole; what JSON has no form for, such as a date, as text."""
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    return str(value)


def check_holds(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Raises InputError if a column of the table holds lists and the format of `path` is csv."""
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if nested and Path(path).suffix == ".csv":
        raise InputError(
            f"{path}: csv cannot hold the lists or structs of column {nested[0]!r}; "
            "write .parquet or .jsonl"
        )


def check_kept(table: pa.Table, columns: Mapping[str, np.ndarray], source: str | Path) -> None:
    """Raises InputError if one of `columns` would replace one of the table that holds other values.

    For a command that adds columns of ours to a user's.
    """
    for name, values in columns.items():
        if name in table.column_names and table[name].to_pylist() != values.tolist():
            raise InputError(
                f"{source}: has a column {name!r}, and so has the output, with other values; "
                "rename or remove it"
            )


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
            rows = np.flatnonzero(column.is_valid().to_numpy())
            which = (
                f": row {rows[0]}: {name} is {column[rows[0]].as_py()!r:.60}" if rows.size else ""
            )
            raise InputError(
                f"{source}{which}: column {name!r} holds {column.type}, not text; give one text "
                "per row"
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
