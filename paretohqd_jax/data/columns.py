"""Python values and texts of a csv as Arrow columns: nothing is rewritten, no two numbers merge."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

INTEGERS = (pa.int64(), pa.uint64(), pa.decimal256(76, 0))  # the first that holds them all
ERRORS = (pa.ArrowException, ArithmeticError, TypeError, ValueError)  # of pa.array
WHOLE = r"^-?(0|[1-9][0-9]*)$"  # what begins with a zero is a name, such as a postal code
NUMBER = r"^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$|^-?(?i:inf|infinity)$"
TRUTH_VALUES = pa.array(["true", "True", "TRUE", "false", "False", "FALSE"])
MISSING = pa.array(["", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "-NaN", "-nan"])


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table with every name that occurs; a value is null where its row lacks the name.

    Raises ValueError naming the first row and column that do not go with those before.
    """
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: list[Any]) -> pa.Array | pa.ChunkedArray:
    def array(values: list[Any]) -> pa.Array | pa.ChunkedArray:
        kinds = set(map(type, values)) - {type(None)}
        if kinds == {int}:
            return _integers(values)
        return pa.array(_floats(values) if kinds == {int, float} else values)

    def fails(count: int) -> bool:
        try:
            array(values[:count])
        except ERRORS:
            return True
        return False

    try:
        return array(values)
    except ERRORS as error:
        row = bisect.bisect_left(range(len(values) + 1), True, key=fails) - 1
        reason = str(error).splitlines()[0]
        if isinstance(error, UnicodeEncodeError):
            reason = "half of a surrogate pair is no character"
        raise ValueError(f"in row {row}: {name!r} is {values[row]!r:.60}: {reason}") from error


def _integers(values: list[int | None]) -> pa.Array:
    for kind in INTEGERS[:-1]:
        try:
            return pa.array(values, kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
    return pa.array([None if value is None else Decimal(value) for value in values], INTEGERS[-1])


def _floats(values: list[int | float | None]) -> list[float | None]:
    for value in values:
        if isinstance(value, int) and float(value) != value:
            raise ValueError(f"float64 cannot hold {value}, a whole number beside fractions")
    return [None if value is None else float(value) for value in values]


def typed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """A csv's column as numbers or truth values if all its texts are some; else as it is.

    Texts stay what begins with a zero (a postal code), and whole numbers that float64 does not hold
    beside others that are not whole.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    values = pc.if_else(pc.is_in(trimmed, MISSING), pa.scalar(None, pa.string()), trimmed)
    if values.null_count == len(values):
        return texts
    if pc.all(pc.is_in(values.drop_null(), TRUTH_VALUES)).as_py():
        return pc.utf8_lower(values).cast(pa.bool_())
    whole = pc.match_substring_regex(values, WHOLE)
    if pc.all(whole).as_py():
        for kind in INTEGERS:
            try:
                return values.cast(kind)
            except pa.ArrowInvalid:
                continue
    if not pc.all(pc.match_substring_regex(values, NUMBER)).as_py():
        return texts
    long = values.filter(pc.and_(whole, pc.greater(pc.utf8_length(values), 15))).to_pylist()
    if any(int(float(text)) != int(text) for text in long):
        return texts
    return values.cast(pa.float64())
