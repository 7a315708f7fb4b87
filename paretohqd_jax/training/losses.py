"""Losses as pure functions of token log-probabilities and masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def token_log_probs(
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, chunk_size: int = 128
) -> jax.Array:
    """Log-probabilities of `targets`, float32 `[batch, length]`.

    The logits, by far the largest array of a step, exist for `chunk_size` positions at a time;
    those of several chunks are computed again in the backward pass.

    Args:
      hidden: final hidden states `[batch, length, hidden_size]`.
      embedding: output embedding `[vocab_size, hidden_size]`.
      targets: int32 `[batch, length]`, the token each position should predict.
      chunk_size: positions per chunk; the last one is padded.
    """
    length = hidden.shape[1]
    chunk_size = min(chunk_size, length)
    num_chunks = -(-length // chunk_size)
    pad = num_chunks * chunk_size - length

    def chunked(array: jax.Array) -> jax.Array:
        array = jnp.pad(array, [(0, 0), (0, pad)] + [(0, 0)] * (array.ndim - 2))
        shape = (array.shape[0], num_chunks, chunk_size, *array.shape[2:])
        return jnp.moveaxis(array.reshape(shape), 1, 0)

    def chunk_log_probs(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden, targets = chunk
        logits = jnp.matmul(hidden, embedding.T, preferred_element_type=jnp.float32)
        target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return target_logits - jax.nn.logsumexp(logits, axis=-1)

    if num_chunks == 1:  # nothing is saved by computing the only chunk twice
        return chunk_log_probs((hidden, targets))
    chunks = (chunked(hidden), chunked(targets))
    log_probs = jax.lax.map(jax.checkpoint(chunk_log_probs), chunks)
    return jnp.moveaxis(log_probs, 0, 1).reshape(hidden.shape[0], -1)[:, :length]


def sft_loss(log_probs: jax.Array, response_mask: jax.Array) -> jax.Array:
    """Mean negative log-likelihood per response token (ParetoHqD; spec 1.2, equation 7).

    Args:
      log_probs: float32 `[batch, length]`, each position's log-probability of its target.
      response_mask: bool `[batch, length]`, True where the target is a response token or EOS.
    """
    weights = response_mask.astype(jnp.float32)
    return -jnp.sum(log_probs * weights) / jnp.maximum(jnp.sum(weights), 1.0)
