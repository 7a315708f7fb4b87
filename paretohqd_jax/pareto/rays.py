"""Distances of rows to preference rays and the rows nearest to each ray.

Preference w owns the ray from the ideal point `high` through its compromise point
low + w * (high - low): a direction in reward space, not the weights of a sum (ParetoHqD,
arXiv 2504.16628).
"""

from __future__ import annotations

from typing import Any

from paretohqd_jax.pareto.choice import distances_by, smallest_by
from paretohqd_jax.pareto.inputs import Array
from paretohqd_jax.pareto.metric import Metric, array_module, box
from paretohqd_jax.pareto.preference import check_preferences


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
    return distances_by(_rays, rewards, preferences, low, high, normalize, validate)


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
    return smallest_by(_rays, rewards, preferences, k, low, high, normalize, candidates, validate)


def _rays(preferences: Any, low: Any, high: Any, normalize: bool, dtype: Any, xp: Any) -> Metric:
    """Its parameters are the unit directions of the rays after scaling."""
    ideal, spread, scale = box(low, high, normalize, dtype, xp)
    weights = xp.asarray(check_preferences(preferences, len(ideal))).astype(dtype).T
    gaps = (1 - weights) * spread / scale
    lengths = xp.sqrt((gaps**2).sum(axis=0))
    directions = -gaps / xp.where(lengths > 0, lengths, 1)
    return Metric(ideal, scale, (directions,), _squared_distance, _square_root, steepness=1.0)


def _squared_distance(offset: Array, direction: Array) -> Array:
    """|v - max(0, v.u) u|^2 for offsets v and unit (or zero) directions u, both with the objectives
    in front; written as sums over them, since a matrix product may run in low precision."""
    xp = array_module(offset)
    along = xp.maximum(sum(v * u for v, u in zip(offset, direction, strict=True)), 0)
    return sum((v - along * u) ** 2 for v, u in zip(offset, direction, strict=True))


def _square_root(squares: Array) -> Array:
    return array_module(squares).sqrt(squares)
