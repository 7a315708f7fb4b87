"""The columns of a table that are rewards: one finite number per row, larger is better."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.rows import check_columns
from paretohqd_jax.errors import InputError

EXACT_INTEGERS = 1 << 53  # float64 holds every integer up to here
# Larger rewards and narrower ranges are refused: their squares must be float64 numbers.
LARGEST, NARROWEST = 1e140, 1e-140


def rewards_matrix(
    table: pa.Table,
    objectives: Sequence[str],
    source: str | os.PathLike[str],
    row_ids: Sequence[int] | None = None,
) -> np.ndarray:
    """The columns named `objectives` as rewards `[num_rows, num_objectives]`.

    They are float64, but integers where one is beyond 2**53: no two different ones merge.

    Args:
      row_ids: `[num_rows]`, what messages call the rows; by default they count from 0.

    Raises:
      InputError: a column is missing, or a value is missing, not a number, NaN or infinite; the
        message names the file, the row and the column. Also for integers beyond 2**53 beside
        fractions, which no type holds both.
    """
    check_columns(table, objectives, source)
    columns = [_numbers(table[name], name, source, row_ids) for name in objectives]
    if all(map(_is_natural, columns)):
        columns = [column.astype(np.uint64) for column in columns]  # with int64 they make float64
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


def check_magnitudes(
    rewards: np.ndarray, objectives: Sequence[str], source: str | os.PathLike[str]
) -> None:
    """Raises InputError naming an objective too large, or of too narrow a range, to reckon with."""
    for name, column in zip(objectives, rewards.T, strict=True):
        low, high = float(column.min()), float(column.max())
        if max(-low, high) > LARGEST or 0 < high - low < NARROWEST:
            raise InputError(
                f"{source}: objective {name!r} goes from {low} to {high}, and squares of its values"
                " or differences are beyond float64; multiply it by a power of ten"
            )


def check_ranges(
    rewards: np.ndarray, objectives: Sequence[str], source: str | os.PathLike[str]
) -> None:
    """As `check_magnitudes`, and for an objective that has the same value in every row."""
    check_magnitudes(rewards, objectives, source)
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
        numbers = column.cast(pa.float64()).to_numpy()
        if len(np.unique(numbers)) < pc.count_distinct(column).as_py():
            raise InputError(
                f"{source}: {name!r} holds decimal numbers that are the same in float64, such as "
                f"{column[0]}; divide or round them"
            )
        return numbers
    values = column.to_pylist()
    row = next((row for row, value in enumerate(values) if not _is_number(value)), None)
    if row is None:
        raise InputError(
            f"{source}: {name!r} holds texts such as {values[0]!r}; write numbers without quotes, "
            "without zeros before them, and beyond 2**53 not whole ones beside fractions"
        )
    raise InputError(
        f"{source}: row {row_name(row, row_ids)}: {name!r} is {values[row]!r}, not a number; "
        "an objective needs one number per row"
    )


def _is_wide(column: np.ndarray) -> bool:
    """Whether the column holds an integer that float64 may merge with its neighbours."""
    largest = max(int(column.max()), -int(column.min())) if column.dtype.kind in "iu" else 0
    return largest > EXACT_INTEGERS


def _is_natural(column: np.ndarray) -> bool:
    return column.dtype.kind in "iu" and column.min() >= 0


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
