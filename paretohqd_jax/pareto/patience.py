"""Non-dominated ranks of two objectives by patience sorting."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from paretohqd_jax.pareto.order import descending_code, lexicographic_order, read, write


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
    order = lexicographic_order(keys)
    ordered = keys[order]
    repeated = jnp.concatenate([jnp.zeros(1, bool), (ordered[1:] == ordered[:-1]).all(axis=1)])
    ranks = _patience(descending_code(ordered[:, 1]), repeated)
    return jnp.zeros_like(ranks).at[order].set(ranks, unique_indices=True)


def _patience(codes: jax.Array, repeated: jax.Array) -> jax.Array:
    """Layer of each code in turn; `best[layer]` is the smallest code of the layer so far."""
    num_rows = codes.size

    def place_row(row, state):
        best, ranks, num_layers, last_rank = state
        code = codes[row]

        def narrow(search):  # binary, first tried at the layer of the row before
            low, high, probe = search
            dominated = read(best, probe) <= code
            low, high = jnp.where(dominated, probe + 1, low), jnp.where(dominated, high, probe)
            return low, high, (low + high) // 2

        start = (jnp.int32(0), jnp.where(repeated[row], 0, num_layers), last_rank)
        rank, _, _ = lax.while_loop(lambda search: search[0] < search[1], narrow, start)
        rank = jnp.where(repeated[row], last_rank, rank)
        best = write(best, code, rank)
        ranks = write(ranks, rank, row)
        return best, ranks, jnp.maximum(num_layers, rank + 1), rank

    zero = jnp.int32(0)
    state = (jnp.zeros(num_rows, jnp.uint32), jnp.zeros(num_rows, jnp.int32), zero, zero)
    return lax.fori_loop(0, num_rows, place_row, state)[1]
