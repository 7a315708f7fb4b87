"""The objective that teaches a policy by the rewards of its own answers, for the one trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import next_token_log_probs
from paretohqd_jax.models.sharding import vmap_adapters
from paretohqd_jax.training.policy_losses import k3, policy_losses
from paretohqd_jax.training.step import Objective, StepShardings

PyTree = Any


class Answers(NamedTuple):
    """Answers that policies gave, and what they are worth; leading axes are free."""

    tokens: jax.Array  # int32 [..., length], prompt and response, padded on the right
    token_mask: jax.Array  # bool [..., length], True on real tokens
    response_mask: jax.Array  # bool [..., length], True on response tokens, EOS where there is one
    advantages: jax.Array  # float32 [...]


class Judged(NamedTuple):
    """Answers with the log-probabilities of their tokens, which the objective compares with."""

    answers: Answers
    sampled: jax.Array  # float32 [..., length - 1], under the policy that gave them
    reference: jax.Array  # float32 [..., length - 1], under the base model


def policy_objective(clip: float, kl: float, temperature: float) -> Objective:
    """The mean of `policy_losses` over the response tokens of a batch of `Judged`.

    Every token counts alike, in short answers and long ones (arXiv 2503.14476, section 3.3).
    `temperature` is that of sampling: the policy is what answers were drawn from.
    """

    def loss(
        model: Llama, params: PyTree, adapter: PyTree, batch: Judged, dropout_key: jax.Array
    ) -> jax.Array:
        tokens, token_mask, response_mask, advantages = batch.answers
        log_probs = next_token_log_probs(
            model, {"params": params, "lora": adapter}, tokens, token_mask, dropout_key, temperature
        )
        losses = policy_losses(
            log_probs, batch.sampled, batch.reference, advantages[:, None], clip, kl
        )
        return _mean(losses, response_mask)

    return Objective(loss, lambda batch: jnp.sum(batch.answers.response_mask[:, 1:]))


def make_judge(
    model: Llama, temperature: float, num_parts: int, shardings: StepShardings
) -> Callable[[PyTree, PyTree, Answers], tuple[Judged, jax.Array]]:
    """Builds `judge(adapters, params, answers) -> (judged, kl)`, jitted.

    `answers` are those of the policies `adapters`, `[num_adapters, rows, ...]`, of which so many
    parts are computed in turn. `kl` is the divergence of each adapter from the base model, per
    token, `[num_adapters]`.
    """
    base = Llama(model.config)

    def of_adapter(adapter: PyTree, params: PyTree, answers: Answers) -> tuple[Judged, jax.Array]:
        def of_part(part: Answers) -> tuple[jax.Array, jax.Array]:
            texts, variables = (part.tokens, part.token_mask, None, temperature), {"params": params}
            return (
                next_token_log_probs(model, variables | {"lora": adapter}, *texts),
                next_token_log_probs(base, variables, *texts),
            )

        # Every num_parts-th row, as `training.step` does.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), answers
        )
        sampled, reference = jax.tree.map(
            lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), jax.lax.map(of_part, parts)
        )
        kl = _mean(k3(sampled, reference), answers.response_mask)
        return Judged(answers, sampled, reference), kl

    return jax.jit(
        vmap_adapters(of_adapter, in_axes=(0, None, 0)),
        in_shardings=(shardings.state.adapters, shardings.params, shardings.batch),
        out_shardings=(shardings.batch, shardings.metrics),
    )


def _mean(values: jax.Array, response_mask: jax.Array) -> jax.Array:
    """Over response tokens; `values` are of each token after the first."""
    mask = response_mask[:, 1:].astype(jnp.float32)
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)
