"""Distances of rows to preference rays and the rows nearest to each ray.

Preference w owns the ray from the ideal point `high` through its compromise point
low + w * (high - low): a direction in reward space, not the weights of a sum (ParetoHqD,
arXiv 2504.16628).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import Array, bucket_size, check_rewards, is_traced
from paretohqd_jax.pareto.preference import check_preferences

DECIMALS = 9  # distances that agree to here are ties, which the smaller row id wins
BLOCK = 32  # rows whose smallest distance stands for them in the first pass


def ray_distance(
    rewards: Array,
    preferences: Array,
    low: Array,
    high: Array,
    normalize: bool = True,
    *,
    validate: bool = True,
) -> Array:
    """Euclidean distance of each row to each ray: [num_preferences, num_rows].

    `rewards [num_rows, num_objectives]`, `preferences [num_preferences, num_objectives]`,
    `low` and `high [num_objectives]`. With `normalize` distances are measured after min-max
    scaling by low and high, so an objective's unit does not matter. An objective with high == low
    is not scaled; a preference whose compromise point is the ideal point itself (always with
    one objective) has the distance to the ideal point. The residual vector is formed explicitly:
    |v|^2 - (v.u)^2 would lose half the digits near the ray.

    numpy in: float64 out. jax in: computed in the input's type; works under `jit` and `vmap`.
    """
    array = check_rewards(rewards, validate)
    dtype = jnp.result_type(rewards, jnp.float32) if isinstance(rewards, jax.Array) else np.float64
    array = jnp.asarray(array) if isinstance(rewards, jax.Array) else array
    offsets, directions = _rays(array, preferences, low, high, normalize, dtype)
    return _distance(offsets[:, None, :], directions[:, :, None])


def nearest_to_ray(
    rewards: Array,
    preferences: Array,
    k: int,
    low: Array,
    high: Array,
    *,
    normalize: bool = True,
    candidates: Array | None = None,
    validate: bool = True,
) -> tuple[Array, Array]:
    """The k rows nearest to each ray: (row ids int32, distances), both [num_preferences, k].

    Rows come in ascending order of (distance rounded to 9 decimals, row id), computed in float64
    also where jax runs in float32, so the order is the same on every platform and does not hang
    on the last bit of a tie. `candidates`, bool [num_rows], leaves out rows (a pool is
    `pool_layers(...) >= 0`); the other arguments as in `ray_distance`. O(P N) plus sorting.

    Raises InputError if there are fewer than k candidates (inside `jit`, where their number is
    unknown, the missing places hold infinite distances).
    """
    array = check_rewards(rewards, validate)
    traced = is_traced(array, preferences, low, high, candidates)
    if k < 1:
        raise InputError(f"k: {k}; give at least 1")
    num_rows = array.shape[0]
    available = num_rows if candidates is None or traced else int(np.sum(candidates))
    if available < k:
        raise InputError(f"k: {k} rows wanted of {available}; lower k or give more rows")
    if traced:
        return _nearest_traced(array, preferences, k, low, high, normalize, candidates)
    row_ids, distances = _nearest_on_host(array, preferences, k, low, high, normalize, candidates)
    if isinstance(rewards, jax.Array):
        return jnp.asarray(row_ids), jnp.asarray(distances, jnp.float32)
    return row_ids, distances


def _nearest_on_host(array, preferences, k, low, high, normalize, candidates):
    """A float32 pass over everything, then float64 over the few rows that can be nearest.

    The pass takes the smallest distance of each block of rows. The k-th smallest of those, plus
    what float32 can be wrong by, bounds the k-th nearest row; so the k nearest rows lie in blocks
    below the bound, about k of them, and only their rows are measured exactly and sorted.
    """
    ids = np.arange(len(array)) if candidates is None else np.flatnonzero(candidates)
    rows = array if candidates is None else array[ids]
    offsets, directions = _rays(rows, preferences, low, high, normalize, np.float64)
    with np.errstate(over="ignore"):  # then nothing is left out below
        narrow = offsets.astype(np.float32)
    num_blocks = bucket_size(-(-len(ids) // BLOCK))
    padded = np.full((len(narrow), num_blocks * BLOCK), np.nan, np.float32)
    padded[:, : len(ids)] = narrow
    smallest = np.asarray(_block_minima(padded, directions.astype(np.float32)))
    position = min(k, num_blocks) - 1
    bound = np.partition(smallest, position, axis=1)[:, position]
    bound = bound if k <= num_blocks else np.full_like(bound, np.inf)
    num_objectives = len(offsets)
    largest = num_objectives * np.abs(narrow).max()
    bound += 4 * (num_objectives + 4) * np.finfo(np.float32).eps * largest + 2 * 10.0**-DECIMALS
    ray, block = np.nonzero(smallest <= bound[:, None])
    ray = np.repeat(ray, BLOCK)
    row = (block[:, None] + num_blocks * np.arange(BLOCK)).ravel()
    distances = _distance(offsets[:, np.minimum(row, len(ids) - 1)], directions[:, ray])
    near = (distances <= bound[ray]) & (row < len(ids))
    ray, row, distances = ray[near], row[near], distances[near]
    order = np.lexsort((row, np.round(distances, DECIMALS), ray))
    starts = np.searchsorted(ray[order], np.arange(directions.shape[1]))
    first = order[starts[:, None] + np.arange(k)]
    return ids[row[first]].astype(np.int32), distances[first]


@jax.jit
def _block_minima(offsets: jax.Array, directions: jax.Array) -> jax.Array:
    """Smallest distance in each block: [num_rays, num_blocks]. Block b holds rows b, b + B, ...
    for B blocks, so that the minimum runs over whole vectors of neighbouring rows."""
    columns = offsets.reshape(len(offsets), BLOCK, -1)

    def of_one_ray(direction):  # one at a time: the distances to all rays do not fit a cache
        distances = _distance(columns, direction[:, None, None])
        return jnp.where(jnp.isnan(distances), jnp.inf, distances).min(axis=0)  # padding is nan

    return lax.map(of_one_ray, directions.T)


def _nearest_traced(array, preferences, k, low, high, normalize, candidates):
    """The same order from the distances of all rows, in float64 inside the caller's program."""
    with jax.enable_x64(True):
        offsets, directions = _rays(array, preferences, low, high, normalize, jnp.float64)
        distances = _distance(offsets[:, None, :], directions[:, :, None])
        rounded = jnp.round(distances, DECIMALS)
        if candidates is not None:
            rounded = jnp.where(candidates, rounded, jnp.inf)
        _, row_ids = lax.top_k(-rounded, k)  # among equals the smaller id comes first
        chosen = jnp.take_along_axis(distances, row_ids, axis=1)
        return row_ids.astype(jnp.int32), chosen.astype(jnp.float32)


def _rays(
    rewards: Any, preferences: Any, low: Any, high: Any, normalize: bool, dtype: Any
) -> tuple[Array, Array]:
    """Offsets [M, num_rows] of the rows from the ideal point and unit directions [M, num_rays] of
    the rays, both scaled, with the objectives in front so that loops run over rows."""
    xp = jnp if isinstance(rewards, jax.Array) or is_traced(preferences, low, high) else np
    weights = xp.asarray(check_preferences(preferences, rewards.shape[1])).astype(dtype).T
    low, high = (xp.asarray(bound).astype(dtype)[:, None] for bound in (low, high))
    spread = high - low
    scale = xp.where(spread > 0, spread, 1) if normalize else xp.ones_like(spread)
    gaps = (1 - weights) * spread / scale
    lengths = xp.sqrt((gaps**2).sum(axis=0))
    directions = -gaps / xp.where(lengths > 0, lengths, 1)
    columns = xp.asarray(rewards.T, dtype=dtype, **({} if xp is jnp else {"order": "C"}))
    return (columns - high) / scale, directions


def _distance(offset: Array, direction: Array) -> Array:
    """|v - max(0, v.u) u| for offsets v and unit (or zero) directions u, both with the objectives
    in front; written as sums over objectives, since a matrix product may run in low precision."""
    xp = jnp if isinstance(offset, jax.Array) else np
    along = xp.maximum(sum(v * u for v, u in zip(offset, direction, strict=True)), 0)
    return xp.sqrt(sum((v - along * u) ** 2 for v, u in zip(offset, direction, strict=True)))
