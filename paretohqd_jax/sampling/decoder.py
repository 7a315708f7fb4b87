"""Decoding with a key/value cache, every row with an adapter and a progress of its own.

A fixed number of rows, the slots, is decoded together. A slot holds any prompt under any of the
adapters at hand; when its response ends the next prompt can take its place while the others go on
(continuous batching: Yu et al., OSDI 2022). Every program has a fixed shape: `fill` reads a few
prompts into slots and draws their first tokens, `advance` draws on until enough slots are free.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.cache import Cache, begin_rows, empty_cache, extend_rows, longer_cache
from paretohqd_jax.models.llama import Llama, LlamaConfig, compute_logits, output_embedding
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.sampling.sampler import SamplingConfig, sample

# On GPUs, products with the same left side would be one product with the right sides put together:
# a copy of most weights in every step.
COMPILER_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}


class Slots(NamedTuple):
    """R rows that are decoded together; T is max_new_tokens."""

    cache: Cache  # of each layer [R, K, S, h]
    keys: jax.Array  # uint32 [R, 2], key data: token t of a row is drawn with fold_in(key, t)
    adapter_ids: jax.Array  # int32 [R], among the adapters side by side
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
    adapter_ids: np.ndarray  # int32 [F]
    keys: np.ndarray  # uint32 [F, 2]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty_slots(config: LlamaConfig, num_rows: int, length: int, max_new_tokens: int) -> Slots:
    """Slots that are all free; prompt and response of each have `length` tokens at most."""
    shape = (config.num_layers, num_rows, config.num_kv_heads, length, config.head_dim)
    return Slots(
        cache=empty_cache(shape, config.dtype),
        keys=jnp.zeros((num_rows, 2), jnp.uint32),
        adapter_ids=jnp.zeros(num_rows, jnp.int32),
        tokens=jnp.zeros((num_rows, max_new_tokens), jnp.int32),
        num_tokens=jnp.zeros(num_rows, jnp.int32),
        live=jnp.zeros(num_rows, bool),
    )


@functools.partial(jax.jit, static_argnums=1)
def longer_slots(slots: Slots, length: int) -> Slots:
    """The same rows with room for `length` tokens each."""
    return slots._replace(cache=longer_cache(slots.cache, length))


def fill(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    requests: Requests,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
) -> Slots:
    """Reads prompts into slots and draws the first token of each. `slots` is used up.

    Args:
      model: with its `lora`; or without, then `adapters` is {}.
      params: base weights, fast with each layer's apart (`models.layers.apart`).
      adapters: N of them side by side (`models.lora.side_by_side`).
      slots: with room for P + max_new_tokens.
      requests: the prompts, and the slots they go to.
      eos_token_ids: any of these ends a response.
      sampling: how tokens are drawn; another temperature or top_p does not compile anew.
    """
    return _fill(
        model, params, adapters, slots, requests, *_options(eos_token_ids, sampling),
        top_k=sampling.top_k,
    )  # fmt: skip


def advance(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    *,
    max_live: int = 0,
    max_steps: int = 1 << 30,
) -> tuple[Slots, jax.Array]:
    """Draws tokens until at most `max_live` slots go on, or `max_steps` times; `slots` is used up.

    Arguments as for `fill`. Returns the slots and the number of steps, an int32 scalar.
    """
    return _advance(
        model, params, adapters, slots, *_options(eos_token_ids, sampling),
        np.int32(max_live), np.int32(max_steps), top_k=sampling.top_k,
    )  # fmt: skip


def decode(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    tokens: np.ndarray,
    lengths: np.ndarray,
    keys: jax.Array,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Continues every prompt under every adapter, all at once.

    Args:
      model, params, eos_token_ids, sampling: as for `fill`.
      adapters: a stack of A adapters, `[A, ...]` on every leaf.
      tokens: int32 [B, P] prompts, padded on the right.
      lengths: int32 [B], their lengths.
      keys: jax.random keys [A, B], one per adapter and prompt.

    Returns:
      int32 [A, B, max_new_tokens] and [A, B]: the new tokens, and how many there are up to and
      including the end-of-sequence token.
    """
    num_adapters, num_prompts = keys.shape
    num_rows = num_adapters * num_prompts
    requests = Requests(
        rows=np.arange(num_rows, dtype=np.int32),
        tokens=np.tile(np.asarray(tokens, np.int32), (num_adapters, 1)),
        lengths=np.tile(np.asarray(lengths, np.int32), num_adapters),
        adapter_ids=np.repeat(np.arange(num_adapters, dtype=np.int32), num_prompts),
        keys=np.asarray(jax.random.key_data(keys)).reshape(num_rows, -1),
    )
    if adapters:
        adapters = side_by_side(adapters, model.config.dtype)
    length = requests.tokens.shape[1] + sampling.max_new_tokens
    slots = empty_slots(model.config, num_rows, length, sampling.max_new_tokens)
    slots = fill(model, params, adapters, slots, requests, eos_token_ids, sampling)
    slots, _ = advance(model, params, adapters, slots, eos_token_ids, sampling)
    new_tokens, num_tokens = np.asarray(slots.tokens), np.asarray(slots.num_tokens)
    return new_tokens.reshape(*keys.shape, -1), num_tokens.reshape(keys.shape)


def _options(eos_token_ids: tuple[int, ...], sampling: SamplingConfig) -> tuple[np.ndarray, ...]:
    """End tokens, temperature and top_p as arrays, so that other values do not compile anew."""
    temperature, top_p = np.float32(sampling.temperature), np.float32(sampling.top_p)
    return np.asarray(eos_token_ids, np.int32), temperature, top_p


@functools.partial(
    jax.jit,
    static_argnames=("model", "top_k"),
    donate_argnames="slots",
    compiler_options=COMPILER_OPTIONS,
)
def _fill(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    requests: Requests,
    eos_token_ids: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    *,
    top_k: int,
) -> Slots:
    rows, tokens, lengths = requests.rows, requests.tokens, requests.lengths
    token_mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
    hidden, written = model.apply(
        {"params": params, "lora": adapters}, tokens, token_mask, adapter_ids=requests.adapter_ids
    )
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
    drawn = _draw(
        last, output_embedding(params, model.config), requests.keys, jnp.zeros_like(rows),
        temperature, top_p, top_k,
    )  # fmt: skip
    goes_on = ~jnp.isin(drawn, eos_token_ids) & (slots.tokens.shape[1] > 1)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows].set(new, mode="drop")

    filled = Slots(
        cache=begin_rows(slots.cache, rows, written, lengths),
        keys=put(slots.keys, requests.keys),
        adapter_ids=put(slots.adapter_ids, requests.adapter_ids),
        tokens=slots.tokens.at[rows, 0].set(drawn, mode="drop"),
        num_tokens=put(slots.num_tokens, jnp.ones_like(rows)),
        live=put(slots.live, goes_on),
    )
    return _known_to_all(filled)


@functools.partial(
    jax.jit,
    static_argnames=("model", "top_k"),
    donate_argnames="slots",
    compiler_options=COMPILER_OPTIONS,
)
def _advance(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    eos_token_ids: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    max_live: jax.Array,
    max_steps: jax.Array,
    *,
    top_k: int,
) -> tuple[Slots, jax.Array]:
    embedding = output_embedding(params, model.config)

    def goes_on(carry: tuple[jax.Array, Slots]) -> jax.Array:
        step, slots = carry
        return (step < max_steps) & (jnp.sum(slots.live) > max_live)

    def advance_once(carry: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
        step, slots = carry
        last = jnp.take_along_axis(slots.tokens, slots.num_tokens[:, None] - 1, axis=1)
        hidden, written = model.apply(
            {"params": params, "lora": adapters}, last, None, slots.cache,
            adapter_ids=slots.adapter_ids,
        )  # fmt: skip
        drawn = _draw(
            hidden[:, 0], embedding, slots.keys, slots.num_tokens, temperature, top_p, top_k
        )
        cache = extend_rows(slots.cache, written, slots.live)
        return step + 1, _record(slots._replace(cache=cache), drawn, eos_token_ids)

    step, slots = jax.lax.while_loop(goes_on, advance_once, (jnp.int32(0), slots))
    return _known_to_all(slots), step


def _known_to_all(slots: Slots) -> Slots:
    """The same slots, all but the cache whole on every device, so that every host can read them."""
    cache, *small = slots
    return Slots(cache, *(constrain(x, (None,) * x.ndim) for x in small))


def _draw(
    hidden: jax.Array,
    embedding: jax.Array,
    keys: jax.Array,
    numbers: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    top_k: int,
) -> jax.Array:
    """The next token of each row, int32 [R], from hidden states [R, D]; its number is numbers [R].

    Every device draws the tokens of its own rows from whole logits; all learn of all tokens.
    """
    logits = constrain(compute_logits(hidden, embedding), ("batch", "vocab"))
    logits = constrain(logits, ("batch", None))  # the logits are gathered, not the embedding
    step_keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(keys), numbers)
    return constrain(sample(logits, step_keys, temperature, top_p, top_k), (None,))


def _record(slots: Slots, drawn: jax.Array, eos_token_ids: jax.Array) -> Slots:
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
