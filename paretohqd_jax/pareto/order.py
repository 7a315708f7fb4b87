"""Order-preserving integer keys and the sorts built on them.

Everything here works on int32 keys, larger = better, so that comparisons are exact on every
platform (float32 comparisons may flush denormals to zero).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EMPTY = np.int32(np.iinfo(np.int32).min)  # below every key
WORST = np.int32(EMPTY + 1)  # below every key but its own
PADDING = np.uint32(2**32 - 2)  # WORST as a descending code
TIE_SAMPLE = 1024  # rows among which a tie is taken to mean that there are many


def read(array: jax.Array, index: jax.Array) -> jax.Array:
    """array[index] in a form that XLA keeps inside a compiled loop."""
    return lax.dynamic_index_in_dim(array, index, keepdims=False)


def write(array: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
    """array with array[index] = value, in place inside a compiled loop.

    The value is cast, as loop counters are 64 bits wide where JAX_ENABLE_X64 is set.
    """
    return lax.dynamic_update_index_in_dim(array, jnp.asarray(value, array.dtype), index, 0)


def order_keys(rewards: jax.Array) -> jax.Array:
    """int32 keys with the order of each column of `rewards [num_rows, num_objectives]`.

    Floats up to 32 bits map through their bits: those of a positive float grow with it, those of
    a negative one fall, and -0.0 meets 0.0. Wider numbers and integers map to their ranks in the
    column. A row with a NaN gets the worst key in every objective.
    """
    dtype = rewards.dtype
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4:
        bits = lax.bitcast_convert_type(rewards.astype(jnp.float32), jnp.int32)
        keys = jnp.where(bits < 0, EMPTY - bits, bits)
    elif dtype.itemsize <= 2:
        keys = rewards.astype(jnp.int32)
    else:
        column_rank = jax.vmap(lambda column: jnp.searchsorted(jnp.sort(column), column))
        keys = column_rank(rewards.T).T.astype(jnp.int32)
    if not jnp.issubdtype(dtype, jnp.floating):
        return keys
    return jnp.where(jnp.isnan(rewards).any(axis=1, keepdims=True), WORST, keys)


def descending_code(keys: jax.Array) -> jax.Array:
    """uint32 codes of int32 keys, the best key first (smallest code)."""
    return ~(lax.bitcast_convert_type(keys, jnp.uint32) ^ jnp.uint32(1 << 31))


def pack(high: jax.Array, low: jax.Array) -> jax.Array:
    """One uint64 out of two uint32. XLA's CPU sort takes one integer operand 6 to 8 times faster
    than two operands or floats. Call under `jax.enable_x64(True)`, which holds for a block only.
    """
    return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)


def stable_argsort(codes: jax.Array) -> jax.Array:
    """Stable ascending argsort of uint32 `codes` along the last axis, as int32."""
    with jax.enable_x64(True):
        positions = jnp.broadcast_to(jnp.arange(codes.shape[-1], dtype=jnp.uint32), codes.shape)
        return lax.sort(pack(codes, positions)).astype(jnp.uint32).astype(jnp.int32)


def lexicographic_order(keys: jax.Array) -> jax.Array:
    """Row ids [num_rows] in descending lexicographic order of the columns, stable.

    A row's dominators all come before it. On accelerators one sort of several operands; on CPUs
    one stable sort per column, the last column first, or only the first column's where a sample
    finds no two rows tied in it.
    """
    codes = descending_code(keys)
    ids = jnp.arange(len(keys), dtype=jnp.int32)

    def on_cpu(codes):
        sample = jnp.sort(codes[:: max(1, len(codes) // TIE_SAMPLE), 0])
        tied = (_equals_next(sample) & (sample != PADDING)).any()
        return lax.cond(tied, _order_by_columns, _order_by_first_column, codes)

    def at_once(codes):
        return lax.sort((*codes.T, ids), num_keys=codes.shape[1], is_stable=True)[-1]

    return lax.platform_dependent(codes, cpu=on_cpu, default=at_once)


def _order_by_columns(codes: jax.Array) -> jax.Array:
    """Ascending lexicographic order of uint32 `codes [num_rows, num_columns]`, a sort each."""

    def refine(order, column):
        return order[stable_argsort(column[order])], None

    start = jnp.arange(len(codes), dtype=jnp.int32)
    return lax.scan(refine, start, codes.T, reverse=True)[0]


def _order_by_first_column(codes: jax.Array) -> jax.Array:
    """The same by one sort, after which rows tied in the first column are sorted by themselves.

    They stay in the places that they hold together, so their order is all that changes.
    """
    num_rows = len(codes)
    order = stable_argsort(codes[:, 0])
    first = codes[order, 0]
    tied = _equals_next(first) & (first != PADDING)
    tied |= jnp.roll(tied, 1)
    room = -(-num_rows // 16)

    def collect(place, state):  # flatnonzero as a native loop, ten times faster on CPUs
        places, count = state
        return write(places, place, count), count + tied[place]

    def settle(codes):
        places = (jnp.full(room + 1, num_rows, jnp.int32), jnp.int32(0))
        places, count = lax.fori_loop(0, num_rows, collect, places)
        places = places.at[count].set(num_rows)  # where untied places were written
        ids = order.at[places].get(mode="fill", fill_value=num_rows)
        among = _order_by_columns(codes.at[ids].get(mode="fill", fill_value=PADDING))
        return order.at[places].set(ids[among], mode="drop")

    return lax.cond(tied.sum() <= room, settle, _order_by_columns, codes)


def _equals_next(values: jax.Array) -> jax.Array:
    return jnp.append(values[1:] == values[:-1], False)


def distinct_rows(keys: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The distinct rows in descending lexicographic order, their number, and each row's place.

    Returns (distinct [num_rows, num_objectives], padded with WORST; count, int32 scalar;
    place [num_rows], the index of each row's copy in `distinct`). Equal rows share a rank, and
    the kernels need not tell a copy from a dominator.
    """
    num_rows = len(keys)
    order = lexicographic_order(keys)
    ordered = keys[order]
    is_new = jnp.concatenate([jnp.ones(1, bool), (ordered[1:] != ordered[:-1]).any(axis=1)])
    place = jnp.cumsum(is_new.astype(jnp.int32)) - 1
    distinct = jnp.full_like(keys, WORST)
    distinct = distinct.at[jnp.where(is_new, place, num_rows)].set(ordered, mode="drop")
    return distinct, place[-1] + 1, jnp.zeros_like(place).at[order].set(place, unique_indices=True)
