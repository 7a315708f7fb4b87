"""The rows of the smallest distances, found by way of blocks of rows.

A float32 pass over everything, then float64 over the few rows that can be the nearest. The pass
takes the smallest distance of each block of rows. The k-th smallest of those, plus what float32 can
be wrong by, bounds the k-th nearest row; so the k nearest rows lie in blocks below the bound, about
k of them, and only their rows are measured exactly and sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.pareto.inputs import Array, bucket_size, pad_rows
from paretohqd_jax.pareto.metric import Metric, offsets_from

BLOCK = 16  # rows whose smallest distance stands for them in the first pass
BLOCKS_PER_GROUP = 8
DECIMALS = 9  # distances that agree to here are ties, which the smaller row id wins


def smallest_by_blocks(rows: np.ndarray, k: int, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """The k of `rows [num_rows, M]` with the smallest distances, by (rounded distance, row id).

    Returns (row ids, distances), both [num_preferences, k]. `metric` and its distances are float64.
    """
    rows = rows if rows.dtype == np.float32 else rows.astype(np.float64, copy=False)
    num_blocks = bucket_size(-(-len(rows) // BLOCK))
    padded = pad_rows(rows, num_blocks * BLOCK)
    ideal, scale, parameters, key, root, steepness = metric
    with jax.enable_x64(True):
        pass_over_all = _block_minima(padded, ideal, scale, parameters, key=key, root=root)
    smallest, largest_offset = map(np.asarray, pass_over_all)
    error = _float32_error(rows.shape[1], largest_offset, steepness)
    bound = _kth_smallest(smallest, k) + error + 2 * 10.0**-DECIMALS
    preference, block = np.divmod(np.flatnonzero(smallest <= bound[:, None]), num_blocks)
    row = block[:, None] + num_blocks * np.arange(BLOCK)  # [number of blocks found, BLOCK]
    offsets = metric.offsets(padded.take(row.ravel(), axis=0)).reshape(-1, *row.shape)
    distances = root(key(offsets, *(each[:, preference, None] for each in parameters)))
    near = distances <= bound[preference, None]  # never of padding, whose distances are nan
    preference = np.repeat(preference, near.sum(axis=1))
    row, distances = row[near], distances[near]
    order = np.lexsort((row, np.round(distances, DECIMALS), preference))
    starts = np.searchsorted(preference[order], np.arange(len(smallest)))
    first = order[starts[:, None] + np.arange(k)]
    return row[first], distances[first]


def _float32_error(num_objectives: int, largest_offset: np.ndarray, steepness: Array) -> np.ndarray:
    """What a distance of the float32 pass can be wrong by; infinite where float32 overflows, so
    that no row is left out there."""
    with np.errstate(over="ignore"):
        largest = (largest_offset * np.asarray(steepness, np.float64)).astype(np.float32)
    return 4 * (num_objectives + 4) * num_objectives * np.finfo(np.float32).eps * largest


def _kth_smallest(minima: np.ndarray, k: int) -> np.ndarray:
    """A bound [num_preferences] on the k-th smallest distance from `minima [num_preferences,
    num_blocks]`.

    That of groups of blocks, where they are enough: a little larger, and sooner found.
    """
    groups = minima.reshape(len(minima), BLOCKS_PER_GROUP, -1).min(axis=1)
    for values in (groups, minima):
        if k <= values.shape[1]:
            return np.partition(values, k - 1, axis=1)[:, k - 1]
    return np.full(len(minima), np.inf)


@partial(jax.jit, static_argnames=("key", "root"))
def _block_minima(
    rewards: jax.Array,
    ideal: jax.Array,
    scale: jax.Array,
    parameters: tuple[jax.Array, ...],
    *,
    key: Callable[..., jax.Array],
    root: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Smallest distance in each block [num_preferences, num_blocks], and the largest offset, in
    float32.

    Block b holds rows b, b + B, ... for B blocks, so that the minimum runs over whole vectors of
    neighbouring rows. Offsets are formed in float64: rewards may differ by less than float32
    sees. One too large for float32 makes everything infinite, and no row is left out.
    """
    offsets = offsets_from(rewards, ideal, scale).astype(jnp.float32)
    columns = offsets.reshape(len(offsets), BLOCK, -1)

    def of_one(parameters):  # one preference at a time: all distances at once do not fit a cache
        keys = key(columns, *(each[:, None, None] for each in parameters))
        return root(jnp.where(jnp.isnan(keys), jnp.inf, keys).min(axis=0))  # padding is nan

    minima = lax.map(of_one, tuple(each.T.astype(jnp.float32) for each in parameters))
    return minima, jnp.nanmax(jnp.abs(offsets))
