"""Non-dominated rows, layers and pools.

Row a dominates row b if it is nowhere smaller and somewhere larger (maximisation). Equal rows do
not dominate each other and share a layer. Layer 0 is the set of rows that nothing dominates,
layer l the same once the layers before it are taken away.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import (
    Array,
    answer_in_kind,
    check_rewards,
    exact_float32,
    is_traced,
    pad_rows,
)
from paretohqd_jax.pareto.order import order_keys
from paretohqd_jax.pareto.patience import ranks_of_two
from paretohqd_jax.pareto.tiles import ranks_by_tiles


def non_dominated_rank(rewards: Array, *, validate: bool = True) -> Array:
    """Layer of each row of `rewards [num_rows, num_objectives]`: int32 [num_rows], 0 the best.

    Exact for every input type: float64 values and large integers that float32 would merge are
    replaced by their ranks in the column first (dominance depends on order only). Works under
    `jit` and `vmap` with `validate=False`; there a row with a NaN counts as worst throughout.

    Raises InputError for NaN or infinity, naming row and objective.
    """
    array = check_rewards(rewards, validate)
    if array.shape[0] == 0:
        return answer_in_kind(np.zeros(0, np.int32), rewards)
    if is_traced(array):
        return _ranks(array)
    ranks = np.asarray(_jitted_ranks(pad_rows(exact_float32(array))))
    return answer_in_kind(ranks[: len(array)], rewards)


def non_dominated_mask(rewards: Array, *, validate: bool = True) -> Array:
    """Whether nothing dominates each row of `rewards [num_rows, num_objectives]`: bool [num_rows].

    The same as `non_dominated_rank(rewards) == 0`, duplicates included; types, `validate` and
    errors as there.
    """
    return non_dominated_rank(rewards, validate=validate) == 0


def pool_layers(rewards: Array, min_size: int, *, validate: bool = True) -> Array:
    """Layer of each row in the pool, -1 outside: int32 [num_rows].

    The pool is the first whole layers of `rewards [num_rows, num_objectives]` that hold at least
    `min_size` rows together, or all rows if there are fewer. Types, `validate` and errors as in
    `non_dominated_rank`; `min_size` must be at least 1.
    """
    if min_size < 1:
        raise InputError(f"min_size: {min_size}; give at least 1")
    ranks = non_dominated_rank(rewards, validate=validate)
    xp = jnp if is_traced(ranks) else np
    if len(ranks) == 0:
        return ranks
    ordered = xp.sort(xp.asarray(ranks))
    last_layer = ordered[min(min_size, len(ranks)) - 1]
    return answer_in_kind(xp.where(ranks <= last_layer, ranks, -1), rewards)


def _ranks(rewards: jax.Array) -> jax.Array:
    keys = order_keys(rewards)
    return ranks_of_two(keys) if keys.shape[1] == 2 else ranks_by_tiles(keys)


_jitted_ranks = jax.jit(_ranks)
