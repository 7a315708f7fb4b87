"""Linear scalarisation, what the rays are compared with: rows of the largest weighted sum.

A weighted sum is largest on the convex hull of the rows, so what lies in a hollow of the front is
found by no weights (Das and Dennis, Structural Optimization 14, 1997).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.pareto.choice import (
    DECIMALS,
    box,
    check_choice,
    choice_in_kind,
    offsets_from,
    smallest_traced,
)
from paretohqd_jax.pareto.inputs import Array, check_rewards, is_traced
from paretohqd_jax.pareto.preference import check_preferences


def largest_weighted_sum(
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
    """The k rows with the largest sum of weighted rewards, for each preference.

    (row ids int32, gaps), both [num_preferences, k]. Arguments and order are those of
    `nearest_to_ray`, with the gap of a row in place of its distance: the weighted sum of what it
    lacks to the ideal point, sum_m w_m (high_m - r_m) over high_m - low_m, which is the smaller the
    larger the weighted sum of the rewards is. Without `normalize` the gap is in units of the
    rewards. O(P N M) in float64.

    Raises InputError as `nearest_to_ray` does.
    """
    array = check_rewards(rewards, validate)
    traced = is_traced(array, preferences, low, high, candidates)
    candidates = check_choice(len(array), k, candidates, traced)
    xp = jnp if traced else np
    with jax.enable_x64(True):
        ideal, _, scale = box(low, high, normalize, np.float64, xp)
        weights = xp.asarray(check_preferences(preferences, len(ideal)))
        lacks = -offsets_from(xp.asarray(array), ideal, scale)
        # Summed one objective at a time, since a matrix product may run in low precision.
        gaps = sum(w[:, None] * lack for w, lack in zip(weights.T, lacks, strict=True))
        if traced:
            return smallest_traced(gaps, k, candidates)
    ids = np.arange(len(array)) if candidates is None else np.flatnonzero(candidates)
    row_ids = np.stack([ids[_smallest(row, k)] for row in np.round(gaps[:, ids], DECIMALS)])
    gaps = np.take_along_axis(gaps, row_ids, axis=1)
    return choice_in_kind(row_ids.astype(np.int32), gaps, rewards)


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Places [k] of the smallest of `values [num_values]`, ascending, the first among equals."""
    places = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    return places[np.argsort(values[places], kind="stable")][:k]
