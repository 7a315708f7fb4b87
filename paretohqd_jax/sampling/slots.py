"""The rows that are decoded together, and what they hold."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.cache import Cache, empty_cache, longer_cache
from paretohqd_jax.models.llama import LlamaConfig


class Slots(NamedTuple):
    """R rows that are decoded together, each by M members; T is max_new_tokens."""

    cache: Cache  # of each layer [R M, K, S, h], the members of a row beside each other
    keys: jax.Array  # uint32 [R, 2], key data: token t of a row is drawn with fold_in(key, t)
    adapter_ids: jax.Array  # int32 [R, M], among the adapters side by side
    weights: jax.Array  # float32 [R, M], of the members
    past: jax.Array  # float32 [R, M], what each gives the response so far, if `mixing.reads_past`
    tokens: jax.Array  # int32 [R, T], the response so far
    num_tokens: jax.Array  # int32 [R], its length
    live: jax.Array  # bool [R], whether it goes on

    @property
    def length(self) -> int:
        """Tokens there is room for in a slot."""
        return self.cache.room


class Requests(NamedTuple):
    """F prompts for as many slots, as numpy arrays: the same on every process."""

    rows: np.ndarray  # int32 [F], the slot of each; R or more for none
    tokens: np.ndarray  # int32 [F, P], padded on the right
    lengths: np.ndarray  # int32 [F], at least 1
    adapter_ids: np.ndarray  # int32 [F, M]
    weights: np.ndarray  # float32 [F, M]
    keys: np.ndarray  # uint32 [F, 2]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def empty_slots(
    config: LlamaConfig, num_rows: int, length: int, max_new_tokens: int, num_members: int = 1
) -> Slots:
    """Slots that are all free; prompt and response of each have `length` tokens at most."""
    num_cached = num_rows * num_members
    shape = (config.num_layers, num_cached, config.num_kv_heads, length, config.head_dim)
    return Slots(
        cache=empty_cache(shape, config.dtype),
        keys=jnp.zeros((num_rows, 2), jnp.uint32),
        adapter_ids=jnp.zeros((num_rows, num_members), jnp.int32),
        weights=jnp.zeros((num_rows, num_members), jnp.float32),
        past=jnp.zeros((num_rows, num_members), jnp.float32),
        tokens=jnp.zeros((num_rows, max_new_tokens), jnp.int32),
        num_tokens=jnp.zeros(num_rows, jnp.int32),
        live=jnp.zeros(num_rows, bool),
    )


@functools.partial(jax.jit, static_argnums=1)
def longer_slots(slots: Slots, length: int) -> Slots:
    """The same rows with room for `length` tokens each."""
    return slots._replace(cache=longer_cache(slots.cache, length))


def known_to_all(slots: Slots) -> Slots:
    """The same slots, all but the cache whole on every device, so that every host can read them."""
    cache, *small = slots
    return Slots(cache, *(constrain(x, (None,) * x.ndim) for x in small))


def record(slots: Slots, drawn: jax.Array, eos_token_ids: jax.Array) -> Slots:
    """The slots with one more token [R] in those that are live."""
    rows, max_new_tokens = jnp.arange(len(drawn)), slots.tokens.shape[1]
    places = jnp.where(slots.live, slots.num_tokens, max_new_tokens)  # beyond the end: nowhere
    num_tokens = slots.num_tokens + slots.live
    ended = jnp.isin(drawn, eos_token_ids) | (num_tokens == max_new_tokens)
    return slots._replace(
        tokens=slots.tokens.at[rows, places].set(drawn, mode="drop"),
        num_tokens=num_tokens,
        live=slots.live & ~ended,
    )
