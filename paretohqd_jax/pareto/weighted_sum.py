"""Linear scalarisation, what the rays are compared with: rows of the largest weighted sum.

A weighted sum is largest on the convex hull of the rows, so what lies in a hollow of the front is
found by no weights (Das and Dennis, Structural Optimization 14, 1997).
"""

from __future__ import annotations

from typing import Any

from paretohqd_jax.pareto.choice import smallest_by
from paretohqd_jax.pareto.inputs import Array
from paretohqd_jax.pareto.metric import Metric, box, itself
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

    (row ids int32, gaps), both [num_preferences, k]. Arguments, order and cost are those of
    `nearest_to_ray`, with the gap of a row in place of its distance: the weighted sum of what it
    lacks to the ideal point, sum_m w_m (high_m - r_m) over high_m - low_m, which is the smaller the
    larger the weighted sum of the rewards is. Without `normalize` the gap is in units of the
    rewards.

    Raises InputError as `nearest_to_ray` does.
    """
    return smallest_by(_sums, rewards, preferences, k, low, high, normalize, candidates, validate)


def _sums(preferences: Any, low: Any, high: Any, normalize: bool, dtype: Any, xp: Any) -> Metric:
    ideal, _, scale = box(low, high, normalize, dtype, xp)
    weights = xp.asarray(check_preferences(preferences, len(ideal))).astype(dtype).T
    return Metric(ideal, scale, (-weights,), _sum, itself, steepness=1.0)


def _sum(offset: Array, weight: Array) -> Array:
    """One objective at a time, since a matrix product may run in low precision."""
    return sum(v * w for v, w in zip(offset, weight, strict=True))
