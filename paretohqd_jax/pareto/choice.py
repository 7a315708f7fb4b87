"""What the rules that choose rows have in common: the checks, the order and where it is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.blocks import DECIMALS, smallest_by_blocks
from paretohqd_jax.pareto.inputs import Array, answer_in_kind, check_rewards, is_traced
from paretohqd_jax.pareto.metric import Metric

# From preferences, low, high, normalize, a float type and numpy or jax.numpy.
MakeMetric = Callable[[Any, Any, Any, bool, Any, Any], Metric]


def distances_by(
    make_metric: MakeMetric,
    rewards: Array,
    preferences: Array,
    low: Array,
    high: Array,
    normalize: bool,
    validate: bool,
) -> Array:
    """Of each row to each preference: [num_preferences, num_rows], in float64 for numpy input and
    in the input's type for jax input."""
    array = check_rewards(rewards, validate)
    xp = jnp if isinstance(rewards, jax.Array) or is_traced(preferences, low, high) else np
    dtype = jnp.result_type(rewards, jnp.float32) if xp is jnp else np.float64
    metric = make_metric(preferences, low, high, normalize, dtype, xp)
    return metric.distances(xp.asarray(array))


def smallest_by(
    make_metric: MakeMetric,
    rewards: Array,
    preferences: Array,
    k: int,
    low: Array,
    high: Array,
    normalize: bool,
    candidates: Array | None,
    validate: bool,
) -> tuple[Array, Array]:
    """The k rows of the smallest distances: (row ids int32, distances), [num_preferences, k].

    Arguments and errors as of `nearest_to_ray`.
    """
    array = check_rewards(rewards, validate)
    traced = is_traced(array, preferences, low, high, candidates)
    candidates = _check_choice(len(array), k, candidates, traced)
    if traced:
        with jax.enable_x64(True):
            metric = make_metric(preferences, low, high, normalize, jnp.float64, jnp)
            return _smallest_traced(metric.distances(jnp.asarray(array)), k, candidates)
    metric = make_metric(preferences, low, high, normalize, np.float64, np)
    row_ids, distances = _smallest_on_host(array, k, metric, candidates)
    if isinstance(rewards, jax.Array):
        distances = distances.astype(np.float32)
    return answer_in_kind(row_ids, rewards), answer_in_kind(distances, rewards)


def _check_choice(num_rows: int, k: int, candidates: Array | None, traced: bool) -> Array | None:
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


@jax.core.eval_context()
def _smallest_on_host(
    array: np.ndarray, k: int, metric: Metric, candidates: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    ids = None if candidates is None else np.flatnonzero(candidates)
    row_ids, distances = smallest_by_blocks(array if ids is None else array[ids], k, metric)
    return (row_ids if ids is None else ids[row_ids]).astype(np.int32), distances


def _smallest_traced(
    distances: jax.Array, k: int, candidates: Array | None
) -> tuple[jax.Array, jax.Array]:
    """The same order from the `distances [num_preferences, num_rows]` of all rows, in float64
    inside the caller's program; distances come back as float32."""
    if candidates is not None:
        distances = jnp.where(candidates, distances, jnp.inf)
    rounded = jnp.round(distances, DECIMALS)
    nearness = jnp.where(rounded == 0, 0, -rounded)  # -0, too, is 0: top_k tells them apart
    _, row_ids = lax.top_k(nearness, k)  # among equals the smaller id comes first
    chosen = jnp.take_along_axis(distances, row_ids, axis=1)
    return row_ids.astype(jnp.int32), chosen.astype(jnp.float32)
