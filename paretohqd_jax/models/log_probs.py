"""Log-probabilities of tokens, without the logits of a whole batch at a time."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.llama import Llama, output_embedding

CHUNK_SIZE = 32  # positions whose logits exist at a time


def next_token_log_probs(
    model: Llama,
    variables: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """The log-probability of each token after those before it, float32 `[B, T - 1]`.

    Args:
      model: the network.
      variables: its `params`, and the adapter `lora` where it has one.
      tokens: int32 `[B, T]`.
      mask: bool `[B, T]`, True on real tokens.
      dropout_key: turns the adapter's dropout on.
    """
    hidden = hidden_states(model, variables, tokens[:, :-1], mask[:, :-1], dropout_key)
    embedding = output_embedding(variables["params"], model.config)
    soft_cap = model.config.logit_soft_cap
    return token_log_probs(hidden, embedding, tokens[:, 1:], soft_cap=soft_cap)


def hidden_states(
    model: Llama,
    variables: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """The final ones of all tokens, `[B, T, hidden_size]`; arguments of `next_token_log_probs`."""
    on = dropout_key is not None and model.lora is not None and model.lora.dropout > 0
    return model.apply(
        variables, tokens, mask, deterministic=not on, rngs={"dropout": dropout_key} if on else {}
    )[0]


def response_log_probs(
    model: Llama,
    variables: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    response_mask: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """The log-probability of each response after its prompt, summed in float32, `[B]`.

    `response_mask` is bool `[B, T]`, True on the tokens of the response and its EOS; the other
    arguments are those of `next_token_log_probs`.
    """
    log_probs = next_token_log_probs(model, variables, tokens, mask, dropout_key)
    return jnp.sum(log_probs * response_mask[:, 1:].astype(jnp.float32), axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def token_log_probs(
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    chunk_size: int = CHUNK_SIZE,
    soft_cap: float | None = None,
) -> jax.Array:
    """Log-probabilities of `targets`, float32 `[batch, length]`.

    The logits, by far the largest array of a step, exist for `chunk_size` positions at a time and
    are computed once: a position's gradient is `embedding[target] - probabilities @ embedding`
    times what comes from above, so the forward pass leaves that one vector per position and the
    backward pass only scales it. The embedding counts as frozen and gets no gradient.

    Args:
      hidden: final hidden states `[batch, length, hidden_size]`.
      embedding: output embedding `[vocab_size, hidden_size]`.
      targets: int32 `[batch, length]`, the token each position should predict.
      chunk_size: positions per chunk; the last one is padded.
      soft_cap: logits are this times the tanh of the products over this; the embeddings in a
        position's gradient then count by the slope of that at their product.
    """
    return _log_probs(hidden, embedding, targets, chunk_size, soft_cap, with_slopes=False)[0]


def _log_probs(
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    chunk_size: int,
    soft_cap: float | None,
    with_slopes: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """Log-probabilities `[batch, length]` and their slopes `[batch, length, hidden_size]`."""
    length = hidden.shape[1]
    chunk_size = min(chunk_size, length)
    num_chunks = -(-length // chunk_size)
    pad = num_chunks * chunk_size - length

    def chunked(array: jax.Array) -> jax.Array:
        array = jnp.pad(array, [(0, 0), (0, pad)] + [(0, 0)] * (array.ndim - 2))
        shape = (array.shape[0], num_chunks, chunk_size, *array.shape[2:])
        return jnp.moveaxis(array.reshape(shape), 1, 0)

    def joined(chunks: jax.Array) -> jax.Array:
        chunks = jnp.moveaxis(chunks, 0, 1)
        return chunks.reshape(chunks.shape[0], -1, *chunks.shape[3:])[:, :length]

    def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
        hidden, targets = chunk
        logits = jnp.matmul(hidden, embedding.T, preferred_element_type=jnp.float32)
        logits = constrain(logits, ("batch", None, "vocab"))
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        highest = jnp.max(logits, axis=-1, keepdims=True)
        weights = jnp.exp(logits - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        log_probs = target_logits - (highest + jnp.log(total))[..., 0]
        if not with_slopes:
            return log_probs, None
        if soft_cap is not None:
            weights = weights * (1.0 - (logits / soft_cap) ** 2)
        mean = jnp.matmul(
            weights.astype(embedding.dtype), embedding, preferred_element_type=jnp.float32
        )
        of_targets = embedding[targets]
        if soft_cap is not None:
            of_targets = of_targets * (1.0 - (target_logits / soft_cap) ** 2)[..., None]
        return log_probs, (of_targets - mean / total).astype(hidden.dtype)

    return jax.tree.map(joined, jax.lax.map(of_chunk, (chunked(hidden), chunked(targets))))


def _forward(
    hidden: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    chunk_size: int,
    soft_cap: float | None,
) -> tuple[jax.Array, jax.Array]:
    return _log_probs(hidden, embedding, targets, chunk_size, soft_cap, with_slopes=True)


def _backward(
    chunk_size: int, soft_cap: float | None, slopes: jax.Array, cotangents: jax.Array
) -> tuple:
    return (cotangents[..., None] * slopes).astype(slopes.dtype), None, None


token_log_probs.defvjp(_forward, _backward)
