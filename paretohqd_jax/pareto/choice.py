"""What the rules that choose rows have in common: the box, the checks and the order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import Array, answer_in_kind, is_traced

DECIMALS = 9  # distances that agree to here are ties, which the smaller row id wins


def check_choice(num_rows: int, k: int, candidates: Array | None, traced: bool) -> Array | None:
    """Returns `candidates`, bool [num_rows], as numpy unless they are traced.

    Raises InputError for a k below 1 or, outside `jit`, above the number of candidates, and for
    candidates of another type or shape.
    """
    if k < 1:
        raise InputError(f"k: {k}; give at least 1")
    if candidates is not None:
        candidates = candidates if is_traced(candidates) else np.asarray(candidates)
        if candidates.shape != (num_rows,) or candidates.dtype != bool:
            raise InputError(
                f"candidates: {candidates.dtype} {candidates.shape}; give bool [{num_rows}]"
            )
    available = num_rows if candidates is None or traced else int(np.sum(candidates))
    if available < k:
        raise InputError(f"k: {k} rows wanted of {available}; lower k or give more rows")
    return candidates


def box(
    low: Any, high: Any, normalize: bool, dtype: Any, xp: Any = np
) -> tuple[Array, Array, Array]:
    """The ideal point, the spread and the scale of the objectives, all [M, 1].

    Raises InputError, outside `jit`, for bounds that are not finite.
    """
    low, high = (xp.asarray(bound).astype(dtype)[:, None] for bound in (low, high))
    with np.errstate(over="ignore", invalid="ignore"):
        spread = high - low
    if not is_traced(spread) and not np.isfinite(spread).all():
        raise InputError(
            f"low {low[:, 0].tolist()}, high {high[:, 0].tolist()}: "
            "give finite numbers with a finite difference"
        )
    scale = xp.where(spread > 0, spread, 1) if normalize else xp.ones_like(spread)
    return high, spread, scale


def offsets_from(rewards: Array, ideal: Array, scale: Array) -> Array:
    """Scaled offsets [M, num_rows] of the rows from the ideal point, with the objectives in front
    so that loops run over rows."""
    on_device = isinstance(rewards, jax.Array)
    columns = rewards.T if on_device else np.ascontiguousarray(rewards.T)
    return (columns.astype(ideal.dtype) - ideal) / scale


def choice_in_kind(
    row_ids: np.ndarray, distances: np.ndarray, question: Any
) -> tuple[Array, Array]:
    """Gives numpy answers back as jax arrays, distances in float32, where the input was one."""
    if isinstance(question, jax.Array):
        distances = distances.astype(np.float32)
    return answer_in_kind(row_ids, question), answer_in_kind(distances, question)


def smallest_traced(
    distances: jax.Array, k: int, candidates: Array | None
) -> tuple[jax.Array, jax.Array]:
    """The k rows of the smallest `distances [num_preferences, num_rows]`, inside a program.

    Returns (row ids int32, distances float32), both [num_preferences, k]. Call under
    `jax.enable_x64(True)`.
    """
    if candidates is not None:
        distances = jnp.where(candidates, distances, jnp.inf)
    rounded = jnp.round(distances, DECIMALS)
    _, row_ids = lax.top_k(-rounded, k)  # among equals the smaller id comes first
    chosen = jnp.take_along_axis(distances, row_ids, axis=1)
    return row_ids.astype(jnp.int32), chosen.astype(jnp.float32)
