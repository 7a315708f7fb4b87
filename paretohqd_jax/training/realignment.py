"""SIPO's second alignment (arXiv 2502.14354): better answers are preferred, and made likelier."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.training.preference_losses import PairLogProbs, dpo_margins, pair_losses
from paretohqd_jax.training.preferences import pair_log_probs
from paretohqd_jax.training.step import Objective

PyTree = Any


class Improvements(NamedTuple):
    """Better answers, each with an original that it is preferred to; leading axes are free."""

    tokens: jax.Array  # int32 [..., 2, length], prompt and response, padded on the right
    token_mask: jax.Array  # bool [..., 2, length], True on real tokens
    response_mask: jax.Array  # bool [..., 2, length], True on response tokens and the final EOS
    reference: jax.Array  # float32 [..., 2], log-probabilities under the model to start from


def realignment_losses(
    policy: PairLogProbs,
    reference: PairLogProbs,
    lengths: jax.Array,
    beta: float,
    nll_weight: float,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """The loss of each pair, float32 `[pairs]`.

    -log sigma(z) - nll_weight / length * log pi(better answer), z the margin of DPO.

    Args:
      policy: log-probabilities of the better answer and of the original.
      reference: the same under the model to start from.
      lengths: what a better answer's log-probability is divided by, `[pairs]`.
      beta: of the margin.
      nll_weight: 0 gives DPO.
      loss, label_smoothing: of `pair_losses`.
    """
    margins = dpo_margins(policy, reference, beta)
    likelihood = policy.chosen / jnp.maximum(lengths, 1)
    return pair_losses(margins, beta, loss, label_smoothing) - nll_weight * likelihood


def answer_lengths(batch: Improvements, length: str) -> jax.Array:
    """Tokens of each better answer, float32 `[pairs]`.

    With "padded" those of the prompt and of the longer response, which is what the authors' code
    counts with a batch of one pair.
    """
    if length == "padded":
        return jnp.sum(batch.token_mask, axis=-1).max(axis=-1).astype(jnp.float32)
    return jnp.sum(batch.response_mask[..., 0, :], axis=-1).astype(jnp.float32)


def realignment_objective(
    *, beta: float, loss: str, label_smoothing: float, nll_weight: float, nll_length: str
) -> Objective:
    """The mean of `realignment_losses` over the pairs of a batch."""

    def mean_loss(
        model: Llama, params: PyTree, adapter: PyTree, batch: Improvements, dropout_key: jax.Array
    ) -> jax.Array:
        losses = realignment_losses(
            pair_log_probs(model, params, adapter, batch, dropout_key),
            PairLogProbs(*batch.reference.T), answer_lengths(batch, nll_length), beta, nll_weight,
            loss, label_smoothing,
        )  # fmt: skip
        return jnp.mean(losses)

    return Objective(mean_loss, lambda batch: jnp.asarray(batch.reference.shape[0]))
