"""Advantages of answers in groups, and the loss of a policy, as pure functions.

A group is the G answers that one policy gives to one prompt; an answer is judged by the others of
its group, so that no critic has to learn what a prompt is worth.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

MIN_STD = 1e-4  # added to standard deviations: a group without spread has advantages of 0


def grpo(rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(t - mean) / std of t = sum_m w_m r_m within each group (arXiv 2402.03300).

    Args:
      rewards: of one policy, `[num_prompts, G, num_objectives]`.
      weights: of the objectives, `[num_objectives]`.

    Returns:
      float64 `[num_prompts, G]`, exactly 0 in a group of equal rewards.
    """
    return _standardised(_weighted(rewards, weights))


def gdpo(rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_m w_m A_m, A_m of each objective alone as by `grpo`, standardised over all prompts.

    arXiv 2601.05242. Rewards that sum alike need not have the same advantages. Arguments and
    result are those of `grpo`.
    """
    summed = _weighted(_standardised(rewards), weights)
    return summed / (summed.std(ddof=1) + MIN_STD)  # each group's mean is 0, so theirs is too


def rloo(rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """t = sum_m w_m r_m less the mean of the other answers' (arXiv 2402.14740), in its units.

    Arguments and result are those of `grpo`.
    """
    group_size = rewards.shape[1]
    return _centred(_weighted(rewards, weights)) * group_size / (group_size - 1)


ADVANTAGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "grpo": grpo,
    "gdpo": gdpo,
    "rloo": rloo,
}


def _weighted(rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(rewards, np.float64) @ np.asarray(weights, np.float64)


def _centred(values: np.ndarray) -> np.ndarray:
    """Less the mean of their group; equal values give exact zeros, however that is rounded."""
    values = np.asarray(values, np.float64)
    values = values - values[:, :1]
    return values - values.mean(axis=1, keepdims=True)


def _standardised(values: np.ndarray) -> np.ndarray:
    """In standard deviations of their group."""
    centred = _centred(values)
    return centred / (centred.std(axis=1, ddof=1, keepdims=True) + MIN_STD)


def policy_losses(
    log_probs: jax.Array,
    sampled: jax.Array,
    reference: jax.Array,
    advantages: jax.Array,
    clip: float,
    kl: float,
) -> jax.Array:
    """PPO's clipped surrogate and a KL divergence to the reference, of each token.

    -min(q A, clip(q, 1 - e, 1 + e) A) + b q k3, where q = exp(log_probs - sampled) is the ratio to
    the policy that drew the token (Schulman et al., arXiv 1707.06347, equation 7). k3 is never
    negative, and its mean over tokens that the policy draws is KL(policy || reference). Times q its
    gradient is that divergence's as well; alone it would be that of KL(reference || policy).

    Args:
      log_probs: of tokens under the policy, any shape.
      sampled: under the policy that drew them.
      reference: under the reference.
      advantages: of the answers that the tokens belong to; broadcast.
      clip: e, how far the ratio may go from 1 to the answer's advantage.
      kl: b, the weight of the divergence.

    Returns:
      Of the shape of `log_probs`.
    """
    ratio = jnp.exp(log_probs - sampled)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    return kl * ratio * k3(log_probs, reference) - surrogate


def k3(log_probs: jax.Array, reference: jax.Array) -> jax.Array:
    """p / q - log(p / q) - 1 of tokens drawn from q, p the reference (Schulman 2020).

    Its mean is KL(q || p). Arguments are log-probabilities under q and p, of one shape.
    """
    difference = reference - log_probs
    return jnp.expm1(difference) - difference
