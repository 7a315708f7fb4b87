"""Weighted Chebyshev distances to the ideal point and the rows of the smallest.

The best row by the ray of ParetoHqD is the one beside it, however far from the ideal point. This
distance sees both: the rows at the same distance lie on the faces of a box whose corner is on the
preference's ray, so the row that the smallest box reaches is near the ray and far out. In a hollow
of a front, where no weighted sum is largest, it finds rows all the same.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.choice import MakeMetric, distances_by, smallest_by
from paretohqd_jax.pareto.inputs import Array
from paretohqd_jax.pareto.metric import Metric, array_module, box, itself
from paretohqd_jax.pareto.preference import check_preferences

AUGMENTATION = 0.01
MIN_GAP = 1e-3


def chebyshev_distance(
    rewards: Array,
    preferences: Array,
    low: Array,
    high: Array,
    normalize: bool = True,
    *,
    augmentation: float = AUGMENTATION,
    min_gap: float = MIN_GAP,
    validate: bool = True,
) -> Array:
    """Augmented weighted Chebyshev distance of each row to the ideal point, for each preference.

    [num_preferences, num_rows], of `rewards [num_rows, num_objectives]`, `preferences
    [num_preferences, num_objectives]`, `low` and `high [num_objectives]`; O(P N M) for P
    preferences. With l_m = (high_m - r_m) / (high_m - low_m), what a row lacks, and g_m = 1 - w_m,
    the gap that preference w leaves in objective m, it is

        max_m l_m / g_m + augmentation * sum_m l_m / g_m

    (Wierzbicki 1980; Steuer and Choo, Mathematical Programming 26, 1983; its negative is an
    achievement scalarising function). Of two rows with the same maximum the sum makes the
    dominating one the nearer; the larger `augmentation`, the more like a weighted sum. A gap is at
    least `min_gap`, so that a preference on a corner of the simplex is for its objective alone. Two
    objectives have the weights of the literature, w_m l_m, but for a factor. Without `normalize`
    l_m is high_m - r_m in the units of the rewards. A row beyond `high` in every objective has a
    negative distance. `augmentation` and `min_gap` are static under `jit`.

    numpy in: float64 out. jax in: computed in the input's type (integers in float32, which merges
    those beyond 2**24); works under `jit` and `vmap`.

    Raises InputError as `ray_distance` does, and for an augmentation below 0 or a min_gap of 0 or
    below.
    """
    metric = _boxes(augmentation, min_gap)
    return distances_by(metric, rewards, preferences, low, high, normalize, validate)


def smallest_chebyshev_distance(
    rewards: Array,
    preferences: Array,
    k: int,
    low: Array,
    high: Array,
    *,
    normalize: bool = True,
    augmentation: float = AUGMENTATION,
    min_gap: float = MIN_GAP,
    candidates: Array | None = None,
    validate: bool = True,
) -> tuple[Array, Array]:
    """The k rows with the smallest weighted Chebyshev distance, for each preference.

    (row ids int32, distances), both [num_preferences, k]. The distance is that of
    `chebyshev_distance`; the other arguments, the order and the cost are those of `nearest_to_ray`.
    With an augmentation above 0 a row that is chosen is dominated by none that is not.

    Raises InputError as `nearest_to_ray` does, and for an augmentation below 0 or a min_gap of 0 or
    below.
    """
    metric = _boxes(augmentation, min_gap)
    return smallest_by(metric, rewards, preferences, k, low, high, normalize, candidates, validate)


def check_gaps(augmentation: float, min_gap: float) -> None:
    """Raises InputError for an augmentation below 0, a min_gap of 0 or below, NaN and infinity."""
    if not 0 <= augmentation < np.inf:
        raise InputError(f"augmentation: {augmentation}; give a finite number of 0 or more")
    if not 0 < min_gap < np.inf:
        raise InputError(f"min_gap: {min_gap}; give a finite number above 0")


def _boxes(augmentation: float, min_gap: float) -> MakeMetric:
    check_gaps(augmentation, min_gap)

    def metric(
        preferences: Any, low: Any, high: Any, normalize: bool, dtype: Any, xp: Any
    ) -> Metric:
        ideal, _, scale = box(low, high, normalize, dtype, xp)
        weights = xp.asarray(check_preferences(preferences, len(ideal))).astype(dtype).T
        slopes = -1 / xp.maximum(1 - weights, min_gap)  # offsets are what is lacking, below 0
        steepness = (1 + augmentation * len(ideal)) * abs(slopes).max(axis=0)
        parameters = (slopes, augmentation * slopes)
        return Metric(ideal, scale, parameters, _largest_and_sum, itself, steepness)

    return metric


def _largest_and_sum(offset: Array, slope: Array, sum_slope: Array) -> Array:
    xp = array_module(offset)
    largest = functools.reduce(xp.maximum, (v * s for v, s in zip(offset, slope, strict=True)))
    return largest + sum(v * s for v, s in zip(offset, sum_slope, strict=True))
