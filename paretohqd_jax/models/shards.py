"""Weights in safetensors files, one or several with an index, as Hugging Face lays them out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.huggingface import read_json

WHOLE = "model.safetensors"
INDEX = f"{WHOLE}.index.json"
FLOATS = ("F32", "BF16", "F16", "F64")  # what weights may be stored as


def check_tensors(
    path: Path,
    found: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[int, ...]],
    ignored: str,
) -> None:
    """Compares names and shapes of tensors; `ignored` is a regular expression of others allowed.

    Raises InputError, naming the tensor, where one is missing, unexpected or of another shape.
    """
    unexpected = found.keys() - expected.keys()
    for kind, wrong in (
        ("lacks", expected.keys() - found.keys()),
        ("unexpectedly has", {name for name in unexpected if not re.search(ignored, name)}),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise InputError(
                f"{path}: {kind} tensor {min(wrong)}{more}; weights and configuration do not match"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"{path}: tensor {name} has shape {found[name]}, the configuration says {shape}"
            )


def open_weights(
    directory: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str, tuple[slice, ...]], np.ndarray]]:
    """The shapes of the tensors in a directory, and a function that reads a slice as stored.

    Raises InputError, naming the file, where one is missing or damaged, or two do not belong
    together.
    """
    from safetensors import SafetensorError, safe_open

    def opened(file: Path) -> Any:
        if not file.is_file():
            raise InputError(f"{file}: no such file, though {INDEX} names it")
        try:
            return safe_open(file, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: damaged or cut off ({error}); fetch the file again"
            ) from error

    index = _read_index(directory)
    names = sorted(set(index.values())) or [WHOLE]
    files = {name: opened(directory / name) for name in names}
    # All that lies in the files counts, whether the index knows it or not.
    file_of = {tensor: name for name in names for tensor in files[name].keys()} | index
    _check_disjoint(directory, file_of, files)

    def sliceable(tensor: str) -> Any:
        try:
            return files[file_of[tensor]].get_slice(tensor)
        except SafetensorError as error:
            path = directory / file_of[tensor]
            raise InputError(f"{path}: tensor {tensor} cannot be read ({error})") from error

    def read(tensor: str, index: tuple[slice, ...]) -> np.ndarray:
        stored = sliceable(tensor)
        if stored.get_dtype() not in FLOATS:
            raise InputError(
                f"{directory / file_of[tensor]}: tensor {tensor} has {stored.get_dtype()} values; "
                f"quantised weights are not supported, only {', '.join(FLOATS)}"
            )
        return stored[index]

    return {tensor: tuple(sliceable(tensor).get_shape()) for tensor in file_of}, read


def _read_index(directory: Path) -> dict[str, str]:
    """The file of each tensor by the directory's index; empty where one file holds them all."""
    path, whole = directory / INDEX, directory / WHOLE
    if not path.is_file():
        if not whole.is_file():
            raise InputError(
                f"{directory}: holds no model.safetensors and no {INDEX}; other formats (such as"
                " pytorch_model.bin, a pickle) are not read, convert them to safetensors"
            )
        return {}
    file_of = read_json(path).get("weight_map")
    if not isinstance(file_of, dict) or {type(name) for name in file_of.values()} != {str}:
        raise InputError(f"{path}: holds no weight_map of file names")
    names = sorted(set(file_of.values()))
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path}: names {name!r}, which is outside the directory")
    if whole.is_file() and WHOLE not in names:
        raise InputError(
            f"{directory}: holds {WHOLE} and {INDEX}, which names other files ({names[0]}, ...); "
            "readers differ in which they take, so delete the one that is out of date"
        )
    return file_of


def _check_disjoint(directory: Path, file_of: dict[str, str], files: dict[str, Any]) -> None:
    """Raises InputError for a tensor that lies in another file than `file_of` says."""
    for name, file in files.items():
        for tensor in file.keys():
            if file_of[tensor] != name:
                raise InputError(
                    f"{directory / name}: holds tensor {tensor}, which {INDEX} says is in "
                    f"{file_of[tensor]}; files of different checkpoints are mixed, fetch all again"
                )
