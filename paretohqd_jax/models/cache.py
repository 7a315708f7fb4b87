"""The key/value cache of autoregressive decoding (shapes as in `llama`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import with_logical_constraint as constrain
from jax.experimental.layout import Layout, with_layout_constraint

# Keys and values by layer, each [B, K, T, h]: two sequences of L arrays, or two arrays [L, ...].
KeysValues = tuple[Sequence[jax.Array], Sequence[jax.Array]]
AXES = ("batch", "kv_heads", None, None)


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far: token p of a row is in the row's slot p.

    So what a row reads does not depend on when its neighbours began. Heads come before time, so
    that one decode step reads each head's keys contiguously. Every layer has arrays of its own,
    which are read where they lie and written in place: out of a stack of all layers compilers
    copy each layer's part in every step.
    """

    keys: tuple[jax.Array, ...]  # L of [B, K, S, h]
    values: tuple[jax.Array, ...]  # L of [B, K, S, h]
    lengths: jax.Array  # int32 [B], slots in use

    @property
    def room(self) -> int:
        """Slots of a row."""
        return self.keys[0].shape[2]

    @property
    def mask(self) -> jax.Array:
        """bool [B, S], True where the slot holds a token."""
        return jnp.arange(self.room) < self.lengths[:, None]


def empty_cache(shape: tuple[int, ...], dtype: str) -> Cache:
    """A cache without tokens; shape is (L, B, K, S, h)."""
    num_layers, *shape = shape
    keys, values = (
        tuple(constrain(jnp.zeros(shape, dtype), AXES) for _ in range(num_layers)) for _ in "kv"
    )
    return Cache(keys, values, jnp.zeros(shape[0], jnp.int32))


def begin_rows(cache: Cache, rows: jax.Array, written: KeysValues, lengths: jax.Array) -> Cache:
    """The cache with other texts in some rows, from their beginning.

    Args:
      rows: int32 [F], which; numbers beyond the last row are left out.
      written: keys and values of the texts, of each layer [F, K, T, h], padded on the right.
      lengths: int32 [F], how many tokens each text has.
    """

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        return constrain(old.at[rows, :, : new.shape[2]].set(new, mode="drop"), AXES)

    keys, values = (
        tuple(write(old[layer], new[layer]) for layer in range(len(old)))
        for old, new in zip((cache.keys, cache.values), written, strict=True)
    )
    return Cache(keys, values, cache.lengths.at[rows].set(lengths, mode="drop"))


def write_token(old: jax.Array, new: jax.Array, lengths: jax.Array) -> jax.Array:
    """Keys or values [B, K, S, h] of a layer with those of one more token, [B, K, 1, h], in place.

    Every row gets it, in its first slot that is not in use: `lengths` int32 [B], less than S.
    """
    num_rows, num_heads = old.shape[:2]
    places = jnp.arange(num_rows)[:, None], jnp.arange(num_heads), lengths[:, None]
    # Nothing else in memory moves: the places differ, and all lie within the array. (With rows and
    # tokens alone as indices TPUs would turn the whole array round, to have those in front.)
    written = old.at[places].set(
        new[:, :, 0], mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True
    )
    return _in_order(constrain(written, AXES))


def extend_rows(cache: Cache, written: KeysValues, live: jax.Array) -> Cache:
    """The cache after a call of the model with it, one token longer where `live`, bool [B]."""
    return Cache(*written, cache.lengths + live)


def longer_cache(cache: Cache, length: int) -> Cache:
    """The same tokens with room for `length` of them."""
    room = [(0, 0), (0, 0), (0, length - cache.room), (0, 0)]
    keys, values = (
        tuple(constrain(jnp.pad(x, room), AXES) for x in arrays)
        for arrays in (cache.keys, cache.values)
    )
    return Cache(keys, values, cache.lengths)


def _in_order(x: jax.Array) -> jax.Array:
    """The same array, heads of a row, then tokens of a head, in memory as in its shape.

    Else compilers for GPUs, which read values fastest with a head's numbers apart, would turn the
    whole cache round at the beginning of a program and back at its end.
    """

    def local(x: jax.Array) -> jax.Array:
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    if jax.sharding.get_abstract_mesh().empty:
        return local(x)
    place = nn.logical_to_mesh_axes(AXES)  # GSPMD would gather all parts to tell their layout
    return jax.shard_map(local, in_specs=place, out_specs=place, check_vma=False)(x)
