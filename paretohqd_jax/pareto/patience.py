"""Non-dominated ranks of two objectives by patience sorting."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from paretohqd_jax.pareto.order import descending_code, pack


def ranks_of_two(keys: jax.Array) -> jax.Array:
    """Ranks [num_rows] of int32 `keys [num_rows, 2]`: O(N log N) whatever the number of layers.

    Rows come in descending order of (first, second), so a row is dominated by an earlier one
    exactly if that one's second objective is not smaller. It suffices to keep the best second
    objective seen in each layer; these fall from layer to layer, so a binary search finds the
    first layer that does not dominate the row (Jensen 2003; the same as patience sorting).
    Equal rows stand side by side and share a rank.

    The loop's reads come out of an inner search loop or from constants: XLA's CPU backend then
    compiles the whole loop to a few machine instructions per step, updating in place.
    """
    num_rows = len(keys)
    first, second = descending_code(keys[:, 0]), descending_code(keys[:, 1])
    with jax.enable_x64(True):
        packed = pack(first, second)
        ordered = lax.sort(packed)
        repeated = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] == ordered[:-1]])
        codes = ordered.astype(jnp.uint32)
    ranks = _patience(codes, repeated)
    with jax.enable_x64(True):
        places = jnp.searchsorted(ordered, packed).astype(jnp.int32)
    return ranks[jnp.minimum(places, num_rows - 1)]


def _patience(codes: jax.Array, repeated: jax.Array) -> jax.Array:
    """Layer of each code in turn; `best[layer]` is the smallest code of the layer so far."""
    num_rows = codes.size

    def place_row(row, state):
        best, ranks, num_layers, last_rank = state
        code = codes[row]

        def halve(bounds):
            low, high = bounds
            middle = (low + high) // 2
            dominated = lax.dynamic_index_in_dim(best, middle, keepdims=False) <= code
            return jnp.where(dominated, middle + 1, low), jnp.where(dominated, high, middle)

        start = (jnp.int32(0), jnp.where(repeated[row], 0, num_layers))
        rank, _ = lax.while_loop(lambda bounds: bounds[0] < bounds[1], halve, start)
        rank = jnp.where(repeated[row], last_rank, rank)
        best = lax.dynamic_update_index_in_dim(best, code, rank, 0)
        ranks = lax.dynamic_update_index_in_dim(ranks, rank, row, 0)
        return best, ranks, jnp.maximum(num_layers, rank + 1), rank

    state = (jnp.zeros(num_rows, jnp.uint32), jnp.zeros(num_rows, jnp.int32), 0, 0)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, getattr(leaf, "dtype", jnp.int32)), state)
    return lax.fori_loop(0, num_rows, place_row, state)[1]
