"""The edge between callers and kernels: checks, exact float32 forms, padding to size buckets.

Outside `jit` the public functions take numpy or jax arrays, do their bookkeeping in numpy and
the heavy passes in jitted kernels, and answer in kind: numpy for numpy, jax for jax. Under a
caller's trace they run one whole-array kernel instead and give the same values. Arrays that are
fixed inside a caller's `jit` take the first way too, while it is traced; for that the functions
that call kernels on the host are wrapped in `jax.core.eval_context`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError

Array = jax.Array | np.ndarray

MAX_DISTINCT = 1 << 24  # float32 holds every integer up to here
ALIGNMENT = 64  # bytes


def is_traced(*arrays: Any) -> bool:
    """True inside `jit`, `vmap` or `grad`, where values cannot be looked at."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_rewards(rewards: Any, validate: bool, name: str = "rewards") -> Array:
    """Returns `rewards` as a 2-D real array, numpy unless it is traced.

    Raises InputError for a wrong shape or type, and with `validate` for NaN or infinity, naming
    the first such row and objective.
    """
    traced = is_traced(rewards)
    array = rewards if traced else np.asarray(rewards)
    if array.ndim != 2 or array.shape[1] < 1:
        raise InputError(f"{name}: shape {array.shape}; give [num_rows, num_objectives]")
    if not traced and array.dtype.kind not in "biuf" and array.dtype != jnp.bfloat16:
        raise InputError(f"{name}: type {array.dtype}; give real numbers")
    if not validate:
        return array
    if traced:
        raise InputError(f"{name}: values cannot be checked inside jit; pass validate=False")
    if array.dtype.kind not in "biu":
        finite = np.isfinite(array)
        if not finite.all():
            row, objective = np.argwhere(~finite)[0]
            raise InputError(
                f"{name}: {array[row, objective]} in row {row}, objective {objective}; "
                "remove the row or score it again"
            )
    return array


def answer_in_kind(result: np.ndarray, question: Any) -> Array:
    """Gives a numpy `result` back as a jax array where the caller's input was one.

    Unlike `jnp.asarray`, `device_put` compiles nothing for a new shape.
    """
    return jax.device_put(result) if isinstance(question, jax.Array) else result


def nearest_float32(rewards: np.ndarray) -> np.ndarray:
    """`rewards` rounded to float32, huge ones to infinity.

    Rounding may merge values but never swaps them: a row that is larger in every objective after
    it was so before. One pass, where `exact_float32` may have to sort.
    """
    with np.errstate(over="ignore"):
        return rewards.astype(np.float32, copy=False)


def exact_float32(rewards: np.ndarray) -> np.ndarray:
    """A float32 array with the same order in each column; no two different values merge.

    Dominance depends on order alone, so values that float32 cannot hold (float64 scores,
    integers beyond 2**24) are replaced, column by column, by their ranks among the distinct
    values. O(1) passes where the cast is exact, else one sort per objective.
    """
    narrowed = nearest_float32(rewards)
    if rewards.dtype.kind == "f" and rewards.dtype.itemsize <= 4 or rewards.dtype == jnp.bfloat16:
        return narrowed
    if rewards.dtype.kind == "f":
        exact = np.array_equal(narrowed, rewards, equal_nan=True)
    else:
        exact = rewards.size == 0 or (
            int(rewards.max()) <= MAX_DISTINCT and int(rewards.min()) >= -MAX_DISTINCT
        )
    return narrowed if exact else np.stack([_dense_ranks(c) for c in rewards.T], axis=1)


def _dense_ranks(column: np.ndarray) -> np.ndarray:
    distinct, ranks = np.unique(column, return_inverse=True)
    if distinct.size > MAX_DISTINCT:
        raise InputError(f"rewards: more than {MAX_DISTINCT} distinct values in an objective")
    ranks = ranks.astype(np.float32)
    ranks[column != column] = np.nan
    return ranks


def bucket_size(num_rows: int) -> int:
    """The next of eight sizes per octave, at least 256, so that few shapes ever compile."""
    if num_rows <= 256:
        return 256
    step = 1 << ((num_rows - 1).bit_length() - 4)
    return -(-num_rows // step) * step


def pad_rows(
    rows: np.ndarray, size: int | None = None, fill: float = np.nan, dtype: Any = None
) -> np.ndarray:
    """Appends rows of `fill` up to `size`, by default the row count's bucket.

    The kernels count a NaN row as worst in every objective, so padding never dominates. With
    `dtype` the rows are rounded to it in the same pass, huge ones to infinity. Rows that fit as
    they are come back as a view: in a caller's jit, jax remembers the caller's own float64 arrays
    as the float32 ones that it made of them, and takes them for these under `enable_x64` too.
    """
    size = bucket_size(len(rows)) if size is None else size
    dtype = rows.dtype if dtype is None else np.dtype(dtype)
    if len(rows) == size and rows.dtype == dtype:
        return rows.view()
    padded = _aligned((size, *rows.shape[1:]), dtype)
    with np.errstate(over="ignore"):
        padded[: len(rows)] = rows
    padded[len(rows) :] = fill
    return padded


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that starts where jax on CPUs takes it as it is, without another copy."""
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)
