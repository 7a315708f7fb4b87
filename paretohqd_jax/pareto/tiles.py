"""Non-dominated ranks of any number of objectives by tiles of comparisons."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from paretohqd_jax.pareto.order import WORST, distinct_rows

TILE = 256


def ranks_by_tiles(keys: jax.Array) -> jax.Array:
    """Ranks [num_rows] of int32 `keys [num_rows, num_objectives]`: O(N^2 M) work, O(N) memory.

    Distinct rows in descending lexicographic order can be dominated by earlier rows only, and
    the first objective needs no comparison. A tile of rows first takes the best rank bound from
    every earlier tile, whose ranks are final; inside the tile the longest-chain equation
    rank = max(bound, rank of a dominator + 1) is iterated to its fixed point.
    """
    num_rows, num_objectives = keys.shape
    rows, count, place = distinct_rows(keys)
    rows = jnp.pad(rows, ((0, -num_rows % TILE), (0, 0)), constant_values=WORST)
    columns = rows.T[min(1, num_objectives - 1) :]

    def tile_at(index):
        return lax.dynamic_slice_in_dim(columns, index * TILE, TILE, axis=1)

    def dominates(earlier, later):
        """[TILE, TILE]: whether row i of `earlier` dominates row j of `later`."""
        return (earlier[:, :, None] >= later[:, None, :]).all(axis=0)

    def rank_tile(index, ranks):
        tile = tile_at(index)

        def bound_by(earlier, bound):
            known = lax.dynamic_slice_in_dim(ranks, earlier * TILE, TILE)
            hits = dominates(tile_at(earlier), tile)
            return jnp.maximum(bound, jnp.where(hits, known[:, None] + 1, 0).max(axis=0))

        bound = lax.fori_loop(0, index, bound_by, jnp.zeros(TILE, jnp.int32))
        within = dominates(tile, tile) & jnp.triu(jnp.ones((TILE, TILE), bool), k=1)

        def lengthen(state):
            rank, _ = state
            longer = jnp.maximum(bound, jnp.where(within, rank[:, None] + 1, 0).max(axis=0))
            return longer, (longer != rank).any()

        rank, _ = lax.while_loop(lambda state: state[1], lengthen, (bound, jnp.bool_(True)))
        return lax.dynamic_update_slice_in_dim(ranks, rank, index * TILE, axis=0)

    num_tiles = (count + TILE - 1) // TILE
    ranks = lax.fori_loop(0, num_tiles, rank_tile, jnp.zeros(rows.shape[0], jnp.int32))
    return ranks[place]
