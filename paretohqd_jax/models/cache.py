"""The key/value cache of autoregressive decoding (shapes as in `llama`)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

KeysValues = tuple[jax.Array, jax.Array]  # both [L, B, K, T, h]


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far; every row has the same number of slots filled.

    Heads come before time, so that one decode step reads each head's keys contiguously. Axes of a
    vmap may stand between L and B.
    """

    keys: jax.Array  # [L, B, K, S, h]
    values: jax.Array  # [L, B, K, S, h]
    mask: jax.Array  # bool [B, S], True where the slot holds a real token
    index: jax.Array  # int32 scalar, slots filled


def start_cache(written: KeysValues, token_mask: jax.Array, length: int) -> Cache:
    """A cache of `length` slots that begins with the tokens of one call."""
    room = length - token_mask.shape[1]

    def padded(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)])

    mask = jnp.pad(token_mask, ((0, 0), (0, room)))
    return Cache(padded(written[0]), padded(written[1]), mask, jnp.int32(token_mask.shape[1]))


def extend_cache(cache: Cache, written: KeysValues, token_mask: jax.Array) -> Cache:
    """The cache with the tokens of one more call; they must fit.

    Call it outside of vmap: with the batch axes in place the slots are written in place.
    """

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, cache.index, axis=old.ndim - 2)

    mask = jax.lax.dynamic_update_slice_in_dim(cache.mask, token_mask, cache.index, axis=1)
    return Cache(
        write(cache.keys, written[0]),
        write(cache.values, written[1]),
        mask,
        cache.index + token_mask.shape[1],
    )
