"""A lower bound of a constraint's value: its worst over the distributions near the reference.

    G(f) = min over Q with KL(Q | pi_ref) <= epsilon of E_Q[f]
         = max over chi > 0 of -chi log E_ref[exp(-f / chi)] - chi epsilon

with f = rho q (arXiv 2505.10892). The best chi is near sqrt(Var f / 2 epsilon), which spans orders
of magnitude, so chi is given by its logarithm: steps are relative, and it stays above 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NUM_HALVINGS = 60
LEAST_LOG_CHI = -20.0  # of values that are all the same, the best chi is 0


def lower_bound(
    values: jax.Array, log_chi: jax.Array, epsilon: float, log_weights: jax.Array
) -> jax.Array:
    """What bounds G from below at any chi, and is G at the best one; a scalar.

    Args:
      values: f, float32 `[rows]`.
      log_chi: log of the dual variable, a scalar.
      epsilon: radius of the ball, in nats, above 0.
      log_weights: of the rows under the reference, `[rows]`.
    """
    chi = jnp.exp(log_chi)
    return -chi * (jax.nn.logsumexp(log_weights - values / chi) + epsilon)


def worst_case(values: jax.Array, log_chi: jax.Array, log_weights: jax.Array) -> jax.Array:
    """log Q of each row, `[rows]`, where Q is proportional to pi_ref exp(-f / chi)."""
    return jax.nn.log_softmax(log_weights - values / jnp.exp(log_chi))


def initial_log_chi(values: jax.Array, epsilon: float, log_weights: jax.Array) -> jax.Array:
    """log sqrt(Var f / 2 epsilon), where the bound is best to second order; a scalar."""
    weights = jnp.exp(log_weights)
    variance = weights @ values**2 - (weights @ values) ** 2
    return 0.5 * jnp.log(jnp.maximum(variance, jnp.finfo(jnp.float32).tiny) / (2 * epsilon))


def raise_bound(
    values: jax.Array, log_chi: jax.Array, epsilon: float, log_weights: jax.Array, rate: float
) -> jax.Array:
    """log chi after a step up the bound, a scalar.

    The bound's slope in chi is KL(Q | pi_ref) - epsilon. It is divided by the larger of the two, so
    that a step is at most `rate` whatever the scale of f, epsilon and chi.
    """
    divergence = _divergence(values, log_chi, log_weights)
    step = rate * (divergence - epsilon) / jnp.maximum(divergence, epsilon)
    return jnp.maximum(log_chi + step, LEAST_LOG_CHI)


def best_log_chi(values: jax.Array, epsilon: float, log_weights: jax.Array) -> jax.Array:
    """The log chi of the largest bound, by bisection; a scalar.

    There the worst case Q lies on the border of the ball, and KL(Q | pi_ref) falls as chi rises.
    """

    def halve(_: jax.Array, ends: jax.Array) -> jax.Array:
        low, high = ends
        middle = (low + high) / 2
        outside = _divergence(values, middle, log_weights) > epsilon
        return jnp.where(outside, jnp.stack([middle, high]), jnp.stack([low, middle]))

    start = initial_log_chi(values, epsilon, log_weights)
    return jnp.mean(jax.lax.fori_loop(0, NUM_HALVINGS, halve, jnp.stack([start - 8, start + 8])))


def _divergence(values: jax.Array, log_chi: jax.Array, log_weights: jax.Array) -> jax.Array:
    """KL(Q | pi_ref) of the worst case."""
    log_worst = worst_case(values, log_chi, log_weights)
    return jnp.sum(jnp.exp(log_worst) * (log_worst - log_weights))
