"""Values out of a checkpoint's configuration by name, or one line about what is wrong with one.

Null is as good as absent. What is let through fits where it goes: sizes into int32, numbers into
float32.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError

LARGEST_INTEGER = int(np.iinfo(np.int32).max)
SMALLEST_NUMBER, LARGEST_NUMBER = map(float, (np.finfo("f4").tiny, np.finfo("f4").max))
ITEMS = {
    str: ("a text", "texts"),
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
}
Values = Mapping[str, Any]


def without_nulls(values: Values, told_by_null: Collection[str] = ()) -> dict[str, Any]:
    """The fields that say something; null does where it is named in `told_by_null`."""
    return {
        name: value for name, value in values.items() if value is not None or name in told_by_null
    }


def need_integer(
    path: Path, values: Values, field: str, default: int | None = None, least: int = 1
) -> int:
    """The value of a field of the configuration at `path`, a size; the default where it is null."""
    value = default if values.get(field) is None else values[field]
    if type(value) is not int or not least <= value <= LARGEST_INTEGER:
        raise _wrong(path, field, value, f"an integer from {least} to {LARGEST_INTEGER}")
    return value


def read_integer(path: Path, values: Values, field: str, least: int = 1) -> int | None:
    """As `need_integer`, and None where it is null."""
    return None if values.get(field) is None else need_integer(path, values, field, least=least)


def need_number(path: Path, values: Values, field: str, default: float | None = None) -> float:
    """The value of a field of the configuration at `path`; the default where it is null."""
    value = default if values.get(field) is None else values[field]
    if not _is_number(value) or not value > 0:
        raise _wrong(path, field, value, "a number above 0")
    if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER:
        raise _wrong(path, field, value, "a number that float32 can hold")
    return float(value)


def read_number(path: Path, values: Values, field: str, zero_is_none: bool = False) -> float | None:
    """As `need_number`, and None where it is null, or 0 if that stands for nothing."""
    value = values.get(field)
    if value is None or (zero_is_none and _is_number(value) and value == 0):
        return None
    return need_number(path, values, field)


def need_numbers(path: Path, values: Values, field: str) -> tuple[float, ...]:
    """The value of a field of the configuration at `path`, a list of numbers."""
    value = values.get(field)
    if not isinstance(value, list) or not value:
        raise _wrong(path, field, value, "a list of numbers")
    return tuple(need_number(path, {field: item}, field) for item in value)


def read_flag(path: Path, values: Values, field: str, default: bool = False) -> bool:
    """The value of a field of the configuration at `path`, the default where it is null."""
    value = default if values.get(field) is None else values[field]
    if not isinstance(value, bool):
        raise _wrong(path, field, value, "true or false")
    return value


def need_text(path: Path, values: Values, field: str, default: str | None = None) -> str:
    """The value of a field of the configuration at `path`; the default where it is null."""
    value = default if values.get(field) is None else values[field]
    if not isinstance(value, str):
        raise _wrong(path, field, value, "a text")
    return value


def read_text(path: Path, values: Values, field: str) -> str | None:
    """As `need_text`, and None where it is null."""
    return None if values.get(field) is None else need_text(path, values, field)


def need_list(
    path: Path, values: Values, field: str, kind: type, length: int | None = None
) -> list[Any]:
    """The value of a field of the configuration at `path`, a list of texts (`kind` str), integers
    (int) or finite numbers (float), `length` of them if that is given."""
    value = values.get(field)
    one, many = ITEMS[kind]
    if not isinstance(value, list) or not value:
        raise _wrong(path, field, value, f"a list of {many}")
    for place, item in enumerate(value):
        is_right = _is_number(item) and math.isfinite(item) if kind is float else type(item) is kind
        if not is_right:
            raise _wrong(path, f"{field}[{place}]", item, one)
    if length is not None and len(value) != length:
        raise InputError(f"{path}: field {field!r} has {len(value)} {many}; it must have {length}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(path: Path, field: str, value: object, wanted: str) -> InputError:
    found = "missing" if value is None else f"{value!r:.80}"
    return InputError(f"{path}: field {field!r} is {found}; it must be {wanted}")
