"""Reading jsonl, json and csv: a text stays as it is, whatever it looks like.

Arrow's own readers take texts that look like dates for dates, and write them in another form.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from paretohqd_jax.data.columns import typed

BLOCK_SIZE = 1 << 28  # bytes of a csv parsed at a time; no row of it can be longer
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # that Windows puts before UTF-8
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one per line, or with the suffix .json also in one array.

    NaN, Infinity and -Infinity are read as numbers. Raises ValueError naming the row.
    """
    with _open(path) as file:
        lines = (line for line in file if line.strip())
        first = next(lines, b"").lstrip()
        if first.startswith(b"[") and path.name.removesuffix(".gz").endswith(".json"):
            values = _parse(first + file.read(), 0)
            return [_object(value, row) for row, value in enumerate(values)]
        if first.startswith(b"["):
            raise ValueError("in row 0: begins like one array of all rows; name such a file .json")
        lines = [first, *lines] if first else []
        return [_object(_parse(line, row), row) for row, line in enumerate(lines)]


def read_csv_texts(path: Path) -> pa.Table:
    """A csv with all its columns as texts; a field without anything, even quotes, is null."""
    import pyarrow.csv

    with _open(path) as file:
        names = next(filter(None, csv.reader(line.decode() for line in file)), [])
    blocks = pyarrow.csv.ReadOptions(block_size=BLOCK_SIZE)
    quoted_newlines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    texts = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""],
        strings_can_be_null=True, quoted_strings_can_be_null=False,
    )  # fmt: skip
    with pa.input_stream(path) as stream:
        return pyarrow.csv.read_csv(stream, blocks, quoted_newlines, texts)


def with_numbers(table: pa.Table, texts: Iterable[str]) -> pa.Table:
    """A table of texts with those columns as numbers that hold some, but for those in `texts`."""
    for number, name in enumerate(table.column_names):
        if name not in texts:
            table = table.set_column(number, name, typed(table[number]))
    return table


def _open(path: Path) -> IO[bytes]:
    file = gzip.open(path) if path.name.endswith(".gz") else open(path, "rb")
    beginning = file.peek(3)
    if beginning.startswith(UTF16):
        file.close()
        raise ValueError("it is UTF-16")
    if beginning.startswith(BYTE_ORDER_MARK):
        file.read(len(BYTE_ORDER_MARK))
    return file


def _parse(line: bytes, row: int) -> Any:
    try:
        return DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"in row {row}: byte {error.start} is not of UTF8") from error
    except json.JSONDecodeError as error:
        reason = f"in row {row}: {error.msg} at character {error.pos}"
        raise ValueError(reason) from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"in row {row}: {error}") from error


def _object(value: Any, row: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"in row {row}: {value!r:.40} is no object in braces")
    return value


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} is there more than once")
    return values


DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_without_repeats)
