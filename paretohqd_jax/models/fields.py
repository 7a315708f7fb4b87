"""Values out of a checkpoint's configuration by name, or one line about what is wrong with one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError


def need_integer(path: Path, values: dict[str, Any], field: str, default: int | None = None) -> int:
    """The value of a field of the configuration at `path`, a size; the default where it is null."""
    value = default if values.get(field) is None else values[field]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: field {field!r} is missing or no integer above 0{_found(value)}")
    return value


def need_number(
    path: Path, values: dict[str, Any], field: str, default: float | None = None
) -> float:
    """The value of a field of the configuration at `path`; the default where it is null."""
    value = default if values.get(field) is None else values[field]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise InputError(f"{path}: field {field!r} is missing or no number above 0{_found(value)}")
    return float(value)


def need_numbers(path: Path, values: dict[str, Any], field: str) -> tuple[float, ...]:
    """The value of a field of the configuration at `path`, a list of numbers."""
    value = values.get(field)
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: field {field!r} is missing or no list of numbers{_found(value)}")
    return tuple(need_number(path, {field: item}, field) for item in value)


def read_flag(path: Path, values: dict[str, Any], field: str) -> bool:
    """The value of a field of the configuration at `path`, false where it is missing or null."""
    value = values.get(field)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{path}: field {field!r} is {value!r}; it must be true or false")
    return bool(value)


def _found(value: object) -> str:
    return "" if value is None else f": {value!r:.80}"
