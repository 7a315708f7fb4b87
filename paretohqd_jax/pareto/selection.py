"""Which rows train which preference: pool, box and rays put together."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.dominance import pool_layers
from paretohqd_jax.pareto.inputs import Array, check_rewards, is_traced
from paretohqd_jax.pareto.preference import reward_range
from paretohqd_jax.pareto.rays import nearest_to_ray
from paretohqd_jax.pareto.weighted_sum import largest_weighted_sum

RULES = {"ray": nearest_to_ray, "weighted_sum": largest_weighted_sum}


class Selection(NamedTuple):
    """What `select` found.

    row_ids [num_preferences, k] int32 and distances [num_preferences, k], nearest first (for the
    weighted sum, which knows no distance, the gap to that of the ideal point);
    ranks [num_rows] int32, the layer of the pool's rows and -1 outside; low and high
    [num_objectives], the box the distances were measured in.
    """

    row_ids: Array
    distances: Array
    ranks: Array
    low: Array
    high: Array


def select(
    rewards: Array,
    preferences: Array,
    k: int,
    min_pool_size: int | None = None,
    *,
    range_scope: Literal["data", "pareto", "quantile"] = "data",
    normalize: bool = True,
    rule: Literal["ray", "weighted_sum"] = "ray",
    validate: bool = True,
) -> Selection:
    """The k rows of the Pareto pool nearest to each preference's ray (ParetoHqD, Algorithm 1).

    `rewards [num_rows, num_objectives]`, larger is better; `preferences [num_preferences,
    num_objectives]`; the pool is the first whole layers with at least `min_pool_size` rows, by
    default k rows per preference or all there are. `rule` "weighted_sum" takes the pool's rows of
    the largest weighted sum instead, as linear scalarisation would; that differs from the method
    in the rule alone. A row may serve several preferences. k and `min_pool_size` are static under
    `jit`; `vmap` works too, both with `validate=False`. The cost is that of `pool_layers` and of
    the rule, under `jit` that of ranking all rows.

    Raises InputError for bad rewards or preferences, an unknown rule, fewer rows than k, or a pool
    smaller than k.
    Warns when fewer than `min_pool_size` rows exist; then all are in the pool.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}: unknown; choose from {', '.join(RULES)}")
    array = check_rewards(rewards, validate)
    num_rows = array.shape[0]
    if num_rows < k:
        raise InputError(f"k: {k} rows wanted of {num_rows}; lower k or give more rows")
    if min_pool_size is None:
        min_pool_size = min(k * len(preferences), num_rows)
    if min_pool_size < k:
        raise InputError(f"min_pool_size: {min_pool_size} is below k = {k}; give at least k")
    if min_pool_size > num_rows and not is_traced(array):
        warnings.warn(
            f"only {num_rows} rows for a pool of {min_pool_size}: using all", stacklevel=2
        )
    ranks = pool_layers(rewards, min_pool_size, validate=False)
    low, high = reward_range(rewards, range_scope, ranks=ranks, validate=False)
    row_ids, distances = RULES[rule](
        rewards,
        preferences,
        k,
        low,
        high,
        normalize=normalize,
        candidates=ranks >= 0,
        validate=False,
    )
    return Selection(row_ids, distances, ranks, low, high)
