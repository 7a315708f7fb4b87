"""Losses as pure functions of token log-probabilities and masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sft_loss(log_probs: jax.Array, response_mask: jax.Array) -> jax.Array:
    """Mean negative log-likelihood per response token (equation 7 of docs/method.md).

    Args:
      log_probs: float32 `[batch, length]`, each position's log-probability of its target.
      response_mask: bool `[batch, length]`, True where the target is a response token or EOS.
    """
    weights = response_mask.astype(jnp.float32)
    return -jnp.sum(log_probs * weights) / jnp.maximum(jnp.sum(weights), 1.0)
