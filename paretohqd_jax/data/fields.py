"""The fields of a published table, checked while its rows are read.

Every check takes `source`, `row` and `field` for its message, and gives an empty value for a
missing one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from paretohqd_jax.data.rows import check_columns
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)
Kind = TypeVar("Kind", str, list, dict)


def read_records(
    table: pa.Table, fields: Sequence[str], source: str
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, once `fields` are known to be there."""
    check_columns(table, fields, source)
    return enumerate(table.select(fields).to_pylist())


def without_empty(rows: list[dict[str, Any]], texts: Sequence[str], source: str) -> pa.Table:
    """The rows whose texts say something, as a table."""
    kept = [row for row in rows if all(row[name].strip() for name in texts)]
    if len(kept) < len(rows):
        logger.info("%s: %d rows with an empty text left out", source, len(rows) - len(kept))
    if not kept:
        raise InputError(f"{source}: no row has a {', '.join(texts)}; is config.data.format right?")
    return pa.Table.from_pylist(kept)


def read_line(text: Any, source: str, row: int, field: str) -> str:
    """A text in one line."""
    return read_text(text, source, row, field).replace("\n", " ").strip()


def read_text(value: Any, source: str, row: int, field: str) -> str:
    return _of_kind(value, str, "text", source, row, field)


def read_list(value: Any, source: str, row: int, field: str) -> list[Any]:
    return _of_kind(value, list, "a list", source, row, field)


def read_record(value: Any, source: str, row: int, field: str) -> dict[str, Any]:
    return _of_kind(value, dict, "a record", source, row, field)


def _of_kind(value: Any, kind: type[Kind], name: str, source: str, row: int, field: str) -> Kind:
    """The value, which is empty where it is missing."""
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{source}: row {row}: {field} is {value!r:.80}, not {name}")
    return kind() if value is None else value


def read_choice(value: Any, valid: tuple[int, int], source: str, row: int, field: str) -> int:
    """One of two values, as a number."""
    if value not in valid:
        raise InputError(f"{source}: row {row}: {field} is {value!r}, not {valid[0]} or {valid[1]}")
    return int(value)


def read_number(value: Any, source: str, row: int, field: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{source}: row {row}: {field} is {value!r}, not a number") from None
