"""Pareto geometry of rewards, usable alone: loads jax and numpy only.

Maximisation throughout; `rewards [num_rows, num_objectives]`, float or integer, numpy or jax.
Outside `jit`, numpy input gives numpy results and jax input jax results, though both are worked on
from the host, which brings jax arrays there. Under `jit` pass `validate=False`.
"""

from __future__ import annotations

from paretohqd_jax.pareto.chebyshev import chebyshev_distance, smallest_chebyshev_distance
from paretohqd_jax.pareto.dominance import non_dominated_mask, non_dominated_rank, pool_layers
from paretohqd_jax.pareto.hypervolume import hypervolume
from paretohqd_jax.pareto.indicators import (
    crowding_distance,
    epsilon_indicator,
    generational_distance,
    igd_plus,
    spacing,
    sparsity,
)
from paretohqd_jax.pareto.measured_volume import measure_hypervolume
from paretohqd_jax.pareto.preference import (
    check_preferences,
    compromise_point,
    preference_grid,
    representatives,
    reward_range,
)
from paretohqd_jax.pareto.rays import nearest_to_ray, ray_distance
from paretohqd_jax.pareto.selection import Selection, select
from paretohqd_jax.pareto.weighted_sum import largest_weighted_sum

__all__ = [
    "Selection",
    "chebyshev_distance",
    "check_preferences",
    "compromise_point",
    "crowding_distance",
    "epsilon_indicator",
    "generational_distance",
    "hypervolume",
    "igd_plus",
    "largest_weighted_sum",
    "measure_hypervolume",
    "nearest_to_ray",
    "non_dominated_mask",
    "non_dominated_rank",
    "pool_layers",
    "preference_grid",
    "ray_distance",
    "representatives",
    "reward_range",
    "select",
    "smallest_chebyshev_distance",
    "spacing",
    "sparsity",
]
