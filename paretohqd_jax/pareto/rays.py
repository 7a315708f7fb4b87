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

from paretohqd_jax.pareto.choice import (
    DECIMALS,
    box,
    check_choice,
    choice_in_kind,
    offsets_from,
    smallest_traced,
)
from paretohqd_jax.pareto.inputs import Array, bucket_size, check_rewards, is_traced, pad_rows
from paretohqd_jax.pareto.preference import check_preferences

BLOCK = 16  # rows whose smallest distance stands for them in the first pass
BLOCKS_PER_GROUP = 8


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
    `low` and `high [num_objectives]`; O(P N M) for P preferences. With `normalize` distances are
    measured after min-max scaling by low and high, so an objective's unit does not matter. An
    objective with high == low is not scaled; a preference whose compromise point is the ideal
    point itself (always with one objective) has the distance to the ideal point. The residual
    vector is formed explicitly: |v|^2 - (v.u)^2 would lose half the digits near the ray.

    numpy in: float64 out. jax in: computed in the input's type (integers in float32, which merges
    those beyond 2**24); works under `jit` and `vmap`.

    Raises InputError for bad rewards or preferences and, outside `jit`, for low, high or a
    difference of theirs that is not finite.
    """
    array = check_rewards(rewards, validate)
    xp = jnp if isinstance(rewards, jax.Array) or is_traced(preferences, low, high) else np
    dtype = jnp.result_type(rewards, jnp.float32) if xp is jnp else np.float64
    array = xp.asarray(array)
    ideal, scale, directions = _rays(preferences, low, high, normalize, dtype, xp)
    return _distance(offsets_from(array, ideal, scale)[:, None, :], directions[:, :, None])


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
    `pool_layers(...) >= 0`); the other arguments as in `ray_distance`. For P rays O(P N M) in
    float32 and sorting of some k rows each. Works under `jit` and `vmap` with `validate=False` and
    static k; there all P N distances are formed in float64 and held in memory.

    Raises InputError if there are fewer than k candidates (inside `jit`, where their number is
    unknown, the missing places hold infinite distances), for `candidates` that are not bool
    [num_rows], and for low, high or a difference of theirs that is not finite (outside `jit`).
    """
    array = check_rewards(rewards, validate)
    traced = is_traced(array, preferences, low, high, candidates)
    candidates = check_choice(len(array), k, candidates, traced)
    if traced:
        return _nearest_traced(array, preferences, k, low, high, normalize, candidates)
    chosen = _nearest_on_host(array, preferences, k, low, high, normalize, candidates)
    return choice_in_kind(*chosen, rewards)


@jax.core.eval_context()
def _nearest_on_host(
    array: np.ndarray,
    preferences: Any,
    k: int,
    low: Any,
    high: Any,
    normalize: bool,
    candidates: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """A float32 pass over everything, then float64 over the few rows that can be nearest.

    The pass takes the smallest distance of each block of rows. The k-th smallest of those, plus
    what float32 can be wrong by, bounds the k-th nearest row; so the k nearest rows lie in blocks
    below the bound, about k of them, and only their rows are measured exactly and sorted.
    """
    ids = None if candidates is None else np.flatnonzero(candidates)
    rows = array if ids is None else array[ids]
    rows = rows if rows.dtype == np.float32 else rows.astype(np.float64, copy=False)
    rays = _rays(preferences, np.asarray(low), np.asarray(high), normalize, np.float64)
    num_objectives, num_blocks = rows.shape[1], bucket_size(-(-len(rows) // BLOCK))
    padded = pad_rows(rows, num_blocks * BLOCK)
    with jax.enable_x64(True):
        smallest, largest = map(np.asarray, _block_minima(padded, *rays))
    error = 4 * (num_objectives + 4) * np.finfo(np.float32).eps * num_objectives * largest
    bound = _kth_smallest(smallest, k) + error + 2 * 10.0**-DECIMALS
    ray, block = np.divmod(np.flatnonzero(smallest <= bound[:, None]), num_blocks)
    row = block[:, None] + num_blocks * np.arange(BLOCK)  # [number of blocks found, BLOCK]
    ideal, scale, directions = rays
    offsets = offsets_from(padded.take(row.ravel(), axis=0), ideal, scale)
    distances = _distance(offsets.reshape(-1, *row.shape), directions[:, ray, None])
    near = distances <= bound[ray, None]  # never of padding, whose distances are nan
    ray = np.repeat(ray, near.sum(axis=1))
    row, distances = row[near], distances[near]
    order = np.lexsort((row, np.round(distances, DECIMALS), ray))
    starts = np.searchsorted(ray[order], np.arange(directions.shape[1]))
    first = order[starts[:, None] + np.arange(k)]
    chosen = row[first] if ids is None else ids[row[first]]
    return chosen.astype(np.int32), distances[first]


def _kth_smallest(minima: np.ndarray, k: int) -> np.ndarray:
    """A bound [num_rays] on the k-th smallest distance from `minima [num_rays, num_blocks]`.

    That of groups of blocks, where they are enough: a little larger, and sooner found.
    """
    groups = minima.reshape(len(minima), BLOCKS_PER_GROUP, -1).min(axis=1)
    for values in (groups, minima):
        if k <= values.shape[1]:
            return np.partition(values, k - 1, axis=1)[:, k - 1]
    return np.full(len(minima), np.inf)


@jax.jit
def _block_minima(
    rewards: jax.Array, ideal: jax.Array, scale: jax.Array, directions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Smallest distance in each block [num_rays, num_blocks], and the largest offset, in float32.

    Block b holds rows b, b + B, ... for B blocks, so that the minimum runs over whole vectors of
    neighbouring rows. Offsets are formed in float64: rewards may differ by less than float32
    sees. One too large for float32 makes everything infinite, and no row is left out.
    """
    offsets = offsets_from(rewards, ideal, scale).astype(jnp.float32)
    columns = offsets.reshape(len(offsets), BLOCK, -1)

    def of_one_ray(direction):  # one at a time: the distances to all rays do not fit a cache
        squares = _squared_distance(columns, direction[:, None, None])
        return jnp.sqrt(jnp.where(jnp.isnan(squares), jnp.inf, squares).min(axis=0))

    minima = lax.map(of_one_ray, directions.T.astype(jnp.float32))  # padding is nan
    return minima, jnp.nanmax(jnp.abs(offsets))


def _nearest_traced(
    array: Array,
    preferences: Array,
    k: int,
    low: Array,
    high: Array,
    normalize: bool,
    candidates: Array | None,
) -> tuple[jax.Array, jax.Array]:
    """The same order from the distances of all rows, in float64 inside the caller's program."""
    with jax.enable_x64(True):
        ideal, scale, directions = _rays(preferences, low, high, normalize, jnp.float64, jnp)
        offsets = offsets_from(jnp.asarray(array), ideal, scale)
        distances = _distance(offsets[:, None, :], directions[:, :, None])
        return smallest_traced(distances, k, candidates)


def _rays(
    preferences: Any, low: Any, high: Any, normalize: bool, dtype: Any, xp: Any = np
) -> tuple[Array, Array, Array]:
    """The ideal point [M, 1] and the scales [M, 1] of the objectives, and the unit directions
    [M, num_rays] of the rays after scaling."""
    ideal, spread, scale = box(low, high, normalize, dtype, xp)
    weights = xp.asarray(check_preferences(preferences, len(ideal))).astype(dtype).T
    gaps = (1 - weights) * spread / scale
    lengths = xp.sqrt((gaps**2).sum(axis=0))
    return ideal, scale, -gaps / xp.where(lengths > 0, lengths, 1)


def _distance(offset: Array, direction: Array) -> Array:
    """|v - max(0, v.u) u| for offsets v and unit (or zero) directions u, both with the objectives
    in front."""
    xp = jnp if isinstance(offset, jax.Array) else np
    return xp.sqrt(_squared_distance(offset, direction))


def _squared_distance(offset: Array, direction: Array) -> Array:
    """Written as sums over objectives, since a matrix product may run in low precision."""
    xp = jnp if isinstance(offset, jax.Array) else np
    along = xp.maximum(sum(v * u for v, u in zip(offset, direction, strict=True)), 0)
    return sum((v - along * u) ** 2 for v, u in zip(offset, direction, strict=True))
