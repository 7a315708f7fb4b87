"""The objective that teaches a policy by the rewards of its own answers, for the one trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.models.llama import Llama, output_embedding
from paretohqd_jax.models.log_probs import hidden_states, token_log_probs
from paretohqd_jax.models.sharding import vmap_adapters
from paretohqd_jax.training.policy_losses import k3, policy_losses
from paretohqd_jax.training.step import Objective, StepShardings

PyTree = Any


class Answers(NamedTuple):
    """Answers that policies gave, and what they are worth; leading axes are free.

    There is room for T tokens of an answer, and for at least as many in each row after its prompt.
    """

    tokens: jax.Array  # int32 [..., length], prompt and answer, padded on the right
    token_mask: jax.Array  # bool [..., length], True on real tokens
    starts: jax.Array  # int32 [...], the place of the first token of the answer, above 0
    answer_mask: jax.Array  # bool [..., T], True on its tokens, EOS where there is one
    advantages: jax.Array  # float32 [...]


class Judged(NamedTuple):
    """Answers with the log-probabilities of their tokens, which the objective compares with."""

    answers: Answers
    reference: jax.Array  # float32 [..., T], under the base model
    # float32 [..., T], under the policy that gave them; None: that is the one to be trained.
    sampled: jax.Array | None


def answer_log_probs(
    model: Llama,
    variables: dict[str, Any],
    answers: Answers,
    temperature: float,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Log-probabilities of the answers' tokens when drawn at a temperature, float32 `[B, T]`.

    Logits are computed of these alone. `dropout_key` turns the adapter's dropout on.
    """
    tokens, mask = answers.tokens[:, :-1], answers.token_mask[:, :-1]
    hidden = hidden_states(model, variables, tokens, mask, dropout_key)
    places = answers.starts[:, None] + jnp.arange(answers.answer_mask.shape[1])
    before = jnp.take_along_axis(hidden, places[..., None] - 1, axis=1)
    targets = jnp.take_along_axis(answers.tokens, places, axis=1)
    embedding = output_embedding(variables["params"], model.config)
    soft_cap = model.config.logit_soft_cap
    if soft_cap is not None:  # capped logits over the temperature are these, capped at this
        soft_cap = soft_cap / temperature
    return token_log_probs(before / temperature, embedding, targets, soft_cap=soft_cap)


def policy_objective(clip: float, kl: float, temperature: float) -> Objective:
    """The mean of `policy_losses` over the answers' tokens of a batch of `Judged`.

    Every token counts alike, in short answers and long ones (arXiv 2503.14476, section 3.3).
    `temperature` is that of sampling: the policy is what answers were drawn from.
    """

    def loss(
        model: Llama, params: PyTree, adapter: PyTree, batch: Judged, dropout_key: jax.Array
    ) -> jax.Array:
        answers, reference, sampled = batch
        log_probs = answer_log_probs(
            model, {"params": params, "lora": adapter}, answers, temperature, dropout_key
        )
        if sampled is None:
            sampled = jax.lax.stop_gradient(log_probs)
        losses = policy_losses(log_probs, sampled, reference, answers.advantages[:, None], clip, kl)
        return _mean(losses, answers.answer_mask)

    return Objective(loss, lambda batch: jnp.sum(batch.answers.answer_mask))


def make_judge(
    model: Llama,
    temperature: float,
    num_parts: int,
    shardings: StepShardings,
    by_policy: bool = True,
) -> Callable[[PyTree, PyTree, Answers], tuple[Judged, jax.Array | None]]:
    """Builds `judge(adapters, params, answers) -> (judged, kl)`, jitted.

    `answers` are those of the policies `adapters`, `[num_adapters, rows, ...]`, of which so many
    parts are computed in turn. `kl` is the divergence of each adapter from the base model, per
    token, `[num_adapters]`. Without `by_policy` the policies' own log-probabilities and `kl` are
    None.
    """
    base = Llama(model.config)

    def of_adapter(
        adapter: PyTree, params: PyTree, answers: Answers
    ) -> tuple[Judged, jax.Array | None]:
        def of_part(part: Answers) -> tuple[jax.Array, jax.Array | None]:
            variables = {"params": params}
            reference = answer_log_probs(base, variables, part, temperature)
            if not by_policy:
                return reference, None
            variables["lora"] = adapter
            return reference, answer_log_probs(model, variables, part, temperature)

        # Every num_parts-th row, as `training.step` does.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), answers
        )
        reference, sampled = jax.tree.map(
            lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), jax.lax.map(of_part, parts)
        )
        judged = Judged(answers, reference, sampled)
        return judged, _mean(k3(sampled, reference), answers.answer_mask) if by_policy else None

    return jax.jit(
        vmap_adapters(of_adapter, in_axes=(0, None, 0)),
        in_shardings=(shardings.state.adapters, shardings.params, shardings.batch),
        out_shardings=(shardings.batch, shardings.metrics),
    )


def _mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Of the values, of one shape with the mask, where it is True."""
    weights = mask.astype(jnp.float32)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
