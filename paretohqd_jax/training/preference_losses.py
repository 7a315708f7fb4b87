"""Losses of preference pairs as pure functions of sequence log-probabilities.

A pair has a chosen and a rejected response to one prompt, and for each objective a label: 1 where
the objective prefers the chosen response, -1 where it prefers the rejected one, 0 where it does not
decide. Every method of the preference line is a function of the pairs' margins (`dpo_margins`,
`modpo_margins`): `objective_losses` has the loss of each objective,
`smooth_tchebycheff` makes one of them, and `training.conflicts` combines their gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

LOSSES = ("sigmoid", "hinge", "ipo")


class PairLogProbs(NamedTuple):
    """log pi(response | prompt), summed over response tokens with EOS; float32 `[pairs]`."""

    chosen: jax.Array
    rejected: jax.Array


def implicit_rewards(policy: jax.Array, reference: jax.Array, beta: float) -> jax.Array:
    """beta (log pi - log pi_ref), the reward whose optimal policy `policy` is.

    Rafailov et al., DPO, arXiv 2305.18290, equation 5, without its term of the prompt alone.
    """
    return beta * (policy - reference)


def dpo_margins(policy: PairLogProbs, reference: PairLogProbs, beta: float) -> jax.Array:
    """Implicit reward of the chosen response minus that of the rejected one, float32 `[pairs]`."""
    chosen = implicit_rewards(policy.chosen, reference.chosen, beta)
    return chosen - implicit_rewards(policy.rejected, reference.rejected, beta)


def modpo_margins(
    margins: jax.Array, other_margins: jax.Array, weight: jax.Array, other_weights: jax.Array
) -> jax.Array:
    """The margins that MODPO trains objective k's pairs with, float32 `[pairs]`.

    (z - sum_j w_j (m_j(chosen) - m_j(rejected))) / w_k: what the policy must prefer beyond what the
    other objectives' rewards account for (Zhou et al., arXiv 2310.03708, section 3).

    Args:
      margins: DPO margins z of the policy, `[pairs]`.
      other_margins: the other objectives' rewards of the chosen minus those of the rejected
        responses, `[pairs, num_objectives - 1]`; trained reward models or implicit rewards.
      weight: w_k > 0. At 0 the optimum is the margins' own policy, and there is nothing to train.
      other_weights: `[num_objectives - 1]`.
    """
    return (margins - other_margins @ other_weights) / weight


def pair_losses(
    margins: jax.Array, beta: float, loss: str = "sigmoid", label_smoothing: float = 0.0
) -> jax.Array:
    """The loss of each margin, same shape.

    `sigmoid`: -log sigma(z), or with smoothing e, -(1 - e) log sigma(z) - e log sigma(-z)
    (conservative DPO, Mitchell 2023: e is the share of labels that are wrong). `hinge`:
    max(0, 1 - z) (SLiC, arXiv 2305.10425). `ipo`: (z / beta - 1 / (2 beta))^2 (Azar et al., arXiv
    2310.12036, equation 17).
    """
    if loss == "sigmoid":
        right, wrong = jax.nn.log_sigmoid(margins), jax.nn.log_sigmoid(-margins)
        return -(1 - label_smoothing) * right - label_smoothing * wrong
    if loss == "hinge":
        return jnp.maximum(0.0, 1 - margins)
    if loss == "ipo":
        return (margins / beta - 1 / (2 * beta)) ** 2
    raise ValueError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")


def labelled_losses(
    margins: jax.Array,
    labels: jax.Array,
    beta: float,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """The loss of each pair under each objective, float32 `[pairs, num_objectives]`.

    The margin counts in the direction of the label; a label 0 gives 0.

    Args:
      margins: `[pairs]`.
      labels: -1, 0 or 1, `[pairs, num_objectives]`.
    """
    losses = pair_losses(labels * margins[:, None], beta, loss, label_smoothing)
    return jnp.where(labels == 0, 0.0, losses)


def objective_losses(losses: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the decided pairs of each objective, 0 for one that decides none.

    `losses` and `labels` are `[pairs, num_objectives]`; the result is `[num_objectives]`.
    """
    return jnp.sum(losses, axis=0) / jnp.maximum(jnp.sum(labels != 0, axis=0), 1)


def smooth_tchebycheff(losses: jax.Array, weights: jax.Array, temperature: float) -> jax.Array:
    """t log sum_m exp(w_m L_m / t), the smooth maximum of the weighted losses; a scalar.

    Lin et al., arXiv 2402.19078. A large temperature t tends to their weighted sum, a
    small one to the worst of them. `losses` and `weights` are `[num_objectives]`.
    """
    return temperature * jax.nn.logsumexp(weights * losses / temperature)
