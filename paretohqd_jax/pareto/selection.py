"""Which rows train which preference: pool, box and rule put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.chebyshev import (
    AUGMENTATION,
    MIN_GAP,
    check_gaps,
    smallest_chebyshev_distance,
)
from paretohqd_jax.pareto.dominance import pool_layers
from paretohqd_jax.pareto.inputs import Array, check_rewards, is_traced
from paretohqd_jax.pareto.preference import reward_range
from paretohqd_jax.pareto.rays import nearest_to_ray
from paretohqd_jax.pareto.weighted_sum import largest_weighted_sum

RULES = {
    "ray": nearest_to_ray,
    "weighted_sum": largest_weighted_sum,
    "chebyshev": smallest_chebyshev_distance,
}


class Selection(NamedTuple):
    """What `select` found.

    row_ids [num_preferences, k] int32 and distances [num_preferences, k], nearest first (to the
    ray; by the Chebyshev distance to the ideal point; or, for the weighted sum, by the gap to that
    of the ideal point);
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
    min_pool_size: int = 0,
    *,
    range_scope: Literal["data", "pareto", "quantile"] = "data",
    normalize: bool = True,
    rule: Literal["ray", "weighted_sum", "chebyshev"] = "ray",
    augmentation: float = AUGMENTATION,
    min_gap: float = MIN_GAP,
    validate: bool = True,
) -> Selection:
    """The k rows of the Pareto pool that serve each preference best (ParetoHqD, Algorithm 1).

    `rewards [num_rows, num_objectives]`, larger is better; `preferences [num_preferences,
    num_objectives]`; the pool is the first whole layers with at least `min_pool_size` rows, where 0
    stands for what `default_pool_size` says. `rule` says which rows of the pool: "ray", the
    method's, takes those nearest to the preference's ray (`nearest_to_ray`); "weighted_sum" those
    of the largest weighted sum, as linear scalarisation would (`largest_weighted_sum`); "chebyshev"
    those of the smallest weighted Chebyshev distance to the ideal point, which needs no pool
    (`smallest_chebyshev_distance`; `augmentation` and `min_gap` are its own). Rules differ in
    nothing else. A row may serve several preferences. k, `min_pool_size`, `augmentation` and
    `min_gap` are static under `jit`; `vmap` works too, both with `validate=False`. The cost is that
    of `pool_layers` and of the rule, under `jit` that of ranking all rows.

    Raises InputError for bad rewards or preferences, an unknown rule, what the rule does not take,
    fewer rows than k, or a pool smaller than k.
    Warns when fewer than `min_pool_size` rows exist; then all are in the pool.
    """
    choose = rule_of(rule, augmentation, min_gap)
    array = check_rewards(rewards, validate)
    num_rows = array.shape[0]
    if num_rows < k:
        raise InputError(f"k: {k} rows wanted of {num_rows}; lower k or give more rows")
    if min_pool_size == 0:
        min_pool_size = min(default_pool_size(rule, k, len(preferences), num_rows), num_rows)
    if min_pool_size < k:
        raise InputError(f"min_pool_size: {min_pool_size} is below k = {k}; give at least k")
    if min_pool_size > num_rows and not is_traced(array):
        warnings.warn(
            f"only {num_rows} rows for a pool of {min_pool_size}: using all", stacklevel=2
        )
    ranks = pool_layers(rewards, min_pool_size, validate=False)
    low, high = reward_range(rewards, range_scope, ranks=ranks, validate=False)
    row_ids, distances = choose(
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


def rule_of(
    rule: str, augmentation: float = AUGMENTATION, min_gap: float = MIN_GAP
) -> Callable[..., tuple[Array, Array]]:
    """The function that chooses rows as `nearest_to_ray` does; "chebyshev" has options of its own.

    Raises InputError for an unknown rule and options that are not valid.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}: unknown; choose from {', '.join(RULES)}")
    check_gaps(augmentation, min_gap)
    if rule != "chebyshev":
        return RULES[rule]
    return partial(RULES[rule], augmentation=augmentation, min_gap=min_gap)


def default_pool_size(rule: str, k: int, num_preferences: int, num_rows: int) -> int:
    """N_p where none is given: k rows per preference, but all for a rule that needs no pool."""
    return num_rows if rule == "chebyshev" else k * num_preferences
