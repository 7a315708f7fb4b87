"""Decoding with a key/value cache, every row with an adapter and a progress of its own.

A fixed number of rows, the slots, is decoded together. A slot holds any prompt under any of the
adapters at hand; when its response ends the next prompt can take its place while the others go on
(continuous batching: Yu et al., OSDI 2022). Every program has a fixed shape: `fill` reads a few
prompts into slots and draws their first tokens, `advance` draws on until enough slots are free.

Several adapters may answer together: then a slot has a row of the cache for each of these members,
their next-token distributions are mixed, and all of them read the token that is drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.models.cache import begin_rows, extend_rows
from paretohqd_jax.models.llama import Llama, output_embedding
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.sampling.answerers import Answerer, alone
from paretohqd_jax.sampling.logit_mixtures import PRODUCT, Mixing
from paretohqd_jax.sampling.next_token import draw_tokens
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.slots import Requests, Slots, empty_slots, known_to_all, record

# On GPUs, products with the same left side would be one product with the right sides put together:
# a copy of most weights in every step.
COMPILER_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}


def fill(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    requests: Requests,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    mixing: Mixing = PRODUCT,
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
      mixing: how the distributions of several members make one; where it reads the reference, the
        last of the members is that.
    """
    return _fill(
        model, params, adapters, slots, requests, *_options(eos_token_ids, sampling),
        top_k=sampling.top_k, mixing=mixing,
    )  # fmt: skip


def advance(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    slots: Slots,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    mixing: Mixing = PRODUCT,
    *,
    max_live: int = 0,
    max_steps: int = 1 << 30,
) -> tuple[Slots, jax.Array]:
    """Draws tokens until at most `max_live` slots go on, or `max_steps` times; `slots` is used up.

    Arguments as for `fill`. Returns the slots and the number of steps, an int32 scalar.
    """
    return _advance(
        model, params, adapters, slots, *_options(eos_token_ids, sampling),
        np.int32(max_live), np.int32(max_steps), top_k=sampling.top_k, mixing=mixing,
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
    answerers: Sequence[Answerer] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Continues every prompt under every adapter, or by every answerer, all at once.

    Args:
      model, params, eos_token_ids, sampling: as for `fill`.
      adapters: a stack of adapters, `[num_adapters, ...]` on every leaf.
      tokens: int32 [B, P] prompts, padded on the right.
      lengths: int32 [B], their lengths.
      keys: jax.random keys [A, B], one per answerer and prompt.
      answerers: A of one kind; each adapter alone if there are none.

    Returns:
      int32 [A, B, max_new_tokens] and [A, B]: the new tokens, and how many there are up to and
      including the end-of-sequence token.
    """
    num_answerers, num_prompts = keys.shape
    answerers = answerers or alone(num_answerers)
    num_rows = num_answerers * num_prompts
    requests = Requests(
        rows=np.arange(num_rows, dtype=np.int32),
        tokens=np.tile(np.asarray(tokens, np.int32), (num_answerers, 1)),
        lengths=np.tile(np.asarray(lengths, np.int32), num_answerers),
        adapter_ids=np.repeat(np.int32([each.adapters for each in answerers]), num_prompts, axis=0),
        weights=np.repeat(np.float32([each.weights for each in answerers]), num_prompts, axis=0),
        keys=np.asarray(jax.random.key_data(keys)).reshape(num_rows, -1),
    )
    if adapters:
        adapters = side_by_side(adapters, model.config.dtype)
    room = requests.tokens.shape[1] + sampling.max_new_tokens
    num_members, mixing = answerers[0].kind
    slots = empty_slots(model.config, num_rows, room, sampling.max_new_tokens, num_members)
    slots = fill(model, params, adapters, slots, requests, eos_token_ids, sampling, mixing)
    slots, _ = advance(model, params, adapters, slots, eos_token_ids, sampling, mixing)
    new_tokens, num_tokens = np.asarray(slots.tokens), np.asarray(slots.num_tokens)
    return new_tokens.reshape(*keys.shape, -1), num_tokens.reshape(keys.shape)


def _options(eos_token_ids: tuple[int, ...], sampling: SamplingConfig) -> tuple[np.ndarray, ...]:
    """End tokens, temperature and top_p as arrays, so that other values do not compile anew."""
    temperature, top_p = np.float32(sampling.temperature), np.float32(sampling.top_p)
    return np.asarray(eos_token_ids, np.int32), temperature, top_p


@functools.partial(
    jax.jit,
    static_argnames=("model", "top_k", "mixing"),
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
    mixing: Mixing = PRODUCT,
) -> Slots:
    rows, num_members = requests.rows, requests.weights.shape[1]
    tokens, lengths = (
        jnp.repeat(x, num_members, axis=0) for x in (requests.tokens, requests.lengths)
    )
    token_mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
    hidden, written = model.apply(
        {"params": params, "lora": adapters}, tokens, token_mask,
        adapter_ids=requests.adapter_ids.reshape(-1),
    )  # fmt: skip
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
    drawn, past = draw_tokens(
        last, output_embedding(params, model.config), requests.weights,
        jnp.zeros_like(requests.weights), requests.keys, jnp.zeros_like(rows),
        temperature, top_p, top_k, mixing, model.config.logit_soft_cap,
    )  # fmt: skip
    goes_on = ~jnp.isin(drawn, eos_token_ids) & (slots.tokens.shape[1] > 1)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows].set(new, mode="drop")

    cached = (rows[:, None] * num_members + jnp.arange(num_members)).reshape(-1)
    filled = Slots(
        cache=begin_rows(slots.cache, cached, written, lengths),
        keys=put(slots.keys, requests.keys),
        adapter_ids=put(slots.adapter_ids, requests.adapter_ids),
        weights=put(slots.weights, requests.weights),
        past=put(slots.past, past),
        tokens=slots.tokens.at[rows, 0].set(drawn, mode="drop"),
        num_tokens=put(slots.num_tokens, jnp.ones_like(rows)),
        live=put(slots.live, goes_on),
    )
    return known_to_all(filled)


@functools.partial(
    jax.jit,
    static_argnames=("model", "top_k", "mixing"),
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
    mixing: Mixing = PRODUCT,
) -> tuple[Slots, jax.Array]:
    embedding = output_embedding(params, model.config)
    num_members = slots.weights.shape[1]

    def goes_on(carry: tuple[jax.Array, Slots]) -> jax.Array:
        step, slots = carry
        return (step < max_steps) & (jnp.sum(slots.live) > max_live)

    def advance_once(carry: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
        step, slots = carry
        last = jnp.take_along_axis(slots.tokens, slots.num_tokens[:, None] - 1, axis=1)
        hidden, written = model.apply(
            {"params": params, "lora": adapters}, jnp.repeat(last, num_members, axis=0), None,
            slots.cache, adapter_ids=slots.adapter_ids.reshape(-1),
        )  # fmt: skip
        drawn, past = draw_tokens(
            hidden[:, 0], embedding, slots.weights, slots.past, slots.keys, slots.num_tokens,
            temperature, top_p, top_k, mixing, model.config.logit_soft_cap,
        )  # fmt: skip
        cache = extend_rows(slots.cache, written, jnp.repeat(slots.live, num_members))
        return step + 1, record(slots._replace(cache=cache, past=past), drawn, eos_token_ids)

    step, slots = jax.lax.while_loop(goes_on, advance_once, (jnp.int32(0), slots))
    return known_to_all(slots), step
