"""The Lagrangian of constrained preference optimisation, and the policy that maximises it.

    max over pi of E_pi[p] - tau KL(pi | pi_ref), subject to E_pi[q_j] >= b_j

Expectations over the reference are over rows with log-weights: of a tabular policy the log of its
probabilities, of n rows of data -log n each, or what re-weights them towards a later reference.
All functions take any number of secondary objectives and may be differentiated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def log_ratios(
    primary: jax.Array, secondary: jax.Array, multipliers: jax.Array, tau: float
) -> jax.Array:
    """log rho = (p + q . lambda) / tau - 1, float32 `[rows]` (equation 3).

    Args:
      primary: p, the preference probability of the primary objective, `[rows]`.
      secondary: q, those of the secondary objectives, `[rows, num_secondary]`.
      multipliers: lambda >= 0, `[num_secondary]`.
      tau: weight of the divergence from the reference, above 0.
    """
    return (primary + secondary @ multipliers) / tau - 1


def normalised_ratios(log_ratios: jax.Array, log_weights: jax.Array) -> jax.Array:
    """pi_lambda / pi_ref of each row, `[rows]`: the ratios over their mean under the weights.

    The mean of the ratios themselves is not 1: the -1 of equation 3 stands for a normaliser that is
    not known.
    """
    return jnp.exp(log_ratios - jax.nn.logsumexp(log_weights + log_ratios))


def dual_value(
    multipliers: jax.Array,
    primary: jax.Array,
    secondary: jax.Array,
    thresholds: jax.Array,
    tau: float,
    log_weights: jax.Array,
) -> jax.Array:
    """g(lambda) = tau log E_ref[exp((p + q . lambda) / tau)] - lambda . b, a scalar; convex.

    Its gradient is E[q] - b under the policy proportional to pi_ref exp((p + q . lambda) / tau),
    and its minimum over lambda >= 0 the constrained maximum.
    """
    exponents = (primary + secondary @ multipliers) / tau
    return tau * jax.nn.logsumexp(log_weights + exponents) - multipliers @ thresholds


def descend(multipliers: jax.Array, slacks: jax.Array, learning_rate: float) -> jax.Array:
    """[lambda - eta (value - b)]_+: a multiplier falls where its constraint has slack."""
    return jnp.maximum(multipliers - learning_rate * slacks, 0.0)


def barrier_multipliers(slacks: jax.Array, sharpness: float, margin: float) -> jax.Array:
    """Multipliers of the log barrier (MOPO-LB), those of (1 / t) sum_j phi(value_j - b_j).

    phi is the logarithm where the slack is at least `margin`, and its second-order expansion at
    `margin` below, so that an infeasible policy is pulled back rather than undefined; the extension
    is ours. The multiplier is phi'(slack) / t.

    Args:
      slacks: value - threshold, any shape.
      sharpness: t; the larger, the nearer to the constrained maximum.
      margin: above 0, in the unit of the constraints.
    """
    beyond = (2 * margin - slacks) / margin**2
    inside = 1 / jnp.maximum(slacks, margin)
    return jnp.where(slacks >= margin, inside, beyond) / sharpness


def effective_sample_size(ratios: jax.Array) -> jax.Array:
    """(sum of ratios)^2 / sum of squares, from 1 to the number of rows; a scalar."""
    return jnp.sum(ratios) ** 2 / jnp.sum(ratios**2)
