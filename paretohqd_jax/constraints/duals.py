"""The duals of one trade-off from step to step: chi, lambda, thresholds and the lagged reference.

A trade-off has one objective that is maximised, the primary one, and holds the others above
thresholds. Win rates, p of the primary objective and q of the others, are `[rows, num_objectives]`;
rows are the data, whose policy pi_0 gave each its log-weight. The policy that the multipliers stand
for is

    pi_lambda(y) ~ pi_ref(y) exp((p(y) + lambda . q(y)) / tau)
    pi_ref(y)    ~ pi_0(y) exp(c . (p, q)(y) / tau)

so that a policy is told by coefficients of the win rates, and a reference of any age by those it
has accumulated. No expectation needs the network: rows are re-weighted.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.constraints.lagrangian import (
    barrier_multipliers,
    descend,
    log_ratios,
    normalised_ratios,
)
from paretohqd_jax.constraints.lower_bound import initial_log_chi, lower_bound, raise_bound

BARRIER_RATE = 0.1  # of the way to a barrier's multipliers, which fall steeply with the slack


class Rules(NamedTuple):
    """How duals go on.

    Attributes:
      tau: weight of the divergence from the reference.
      epsilon: radius of the ball in which the worst value of a constraint is taken, in nats.
      max_multiplier: the largest lambda.
      multiplier_rate: of lambda, per unit of slack.
      chi_rate: of log chi.
      refresh_every: t_0, steps from one reference to the next.
      adaptive: thresholds follow the reference, each a level times the bound of its policy.
      sharpness: of the log barrier in place of lambda's descent; 0: no barrier.
    """

    tau: float
    epsilon: float
    max_multiplier: float
    multiplier_rate: float
    chi_rate: float
    refresh_every: int
    adaptive: bool = False
    sharpness: float = 0.0


class Duals(NamedTuple):
    """Every field is float32 `[num_objectives]`; nothing constrains the primary objective."""

    primary: jax.Array  # 1 at the primary objective, 0 at others
    levels: jax.Array  # what thresholds are, in the unit of `Rules.adaptive`
    thresholds: jax.Array  # b
    multipliers: jax.Array  # lambda, 0 at the primary objective
    log_chi: jax.Array
    bounds: jax.Array  # G, of the last step
    reference: jax.Array  # coefficients of pi_ref
    lagged: jax.Array  # coefficients of the policy that is the next reference
    lagged_bounds: jax.Array  # G under it


def start(
    primary: jax.Array,
    levels: jax.Array,
    thresholds: jax.Array,
    win_rates: jax.Array,
    log_weights: jax.Array,
    rules: Rules,
) -> Duals:
    """Before the first step: lambda 0, chi where the bounds are best to second order, pi_ref pi_0.

    Args:
      primary: `[num_objectives]`, as are `levels` and `thresholds`.
      win_rates: of the data, `[rows, num_objectives]`.
      log_weights: of the rows under pi_0, `[rows]`.
      rules: of the run.
    """
    nothing = jnp.zeros_like(thresholds)
    log_chi = jax.vmap(initial_log_chi, (1, None, None))(
        _constrained(primary, nothing, win_rates, log_weights, rules.tau), rules.epsilon,
        log_weights,
    )  # fmt: skip
    values = jnp.exp(log_weights) @ win_rates
    return Duals(primary, levels, thresholds, nothing, log_chi, values, nothing, nothing, values)


def go_on(
    duals: Duals, win_rates: jax.Array, log_weights: jax.Array, step: jax.Array, rules: Rules
) -> Duals:
    """One step: the reference where it is due, chi up the bounds, lambda down the slack.

    Every t_0 steps the reference becomes the policy of t_0 steps ago, and adaptive thresholds the
    levels times what that policy was sure to have: b <- beta G(rho^(t - t_0)).
    """
    due = (step > 0) & (step % rules.refresh_every == 0)
    duals = jax.tree.map(partial(jnp.where, due), _refreshed(duals, rules), duals)
    reference = jax.nn.log_softmax(log_weights + win_rates @ duals.reference / rules.tau)
    values = _constrained(duals.primary, duals.multipliers, win_rates, reference, rules.tau)
    log_chi = jax.vmap(raise_bound, (1, 0, None, None, None))(
        values, duals.log_chi, rules.epsilon, reference, rules.chi_rate
    )
    bounds = jax.vmap(lower_bound, (1, 0, None, None))(values, log_chi, rules.epsilon, reference)
    slacks = bounds - duals.thresholds
    if rules.sharpness:
        # Below 1 / sharpness, where lambda passes 1, the barrier goes on as a parabola.
        wanted = barrier_multipliers(slacks, rules.sharpness, 1 / rules.sharpness)
        multipliers = duals.multipliers + BARRIER_RATE * (wanted - duals.multipliers)
    else:
        multipliers = descend(duals.multipliers, slacks, rules.multiplier_rate)
    multipliers = (1 - duals.primary) * jnp.minimum(multipliers, rules.max_multiplier)
    return duals._replace(log_chi=log_chi, bounds=bounds, multipliers=multipliers)


def rehearse(
    duals: Duals, win_rates: jax.Array, log_weights: jax.Array, rules: Rules, num_steps: int
) -> Duals:
    """The duals after each step, every field `[num_steps, num_objectives]`."""

    def step(duals: Duals, number: jax.Array) -> tuple[Duals, Duals]:
        duals = go_on(duals, win_rates, log_weights, number, rules)
        return duals, duals

    return jax.lax.scan(step, duals, jnp.arange(num_steps))[1]


def coefficients(duals: Duals) -> jax.Array:
    """Those of pi_lambda, `[num_objectives]`."""
    return duals.reference + duals.primary + duals.multipliers


def log_densities(
    duals: Duals,
    of: jax.Array,
    win_rates: jax.Array,
    log_weights: jax.Array,
    tau: float,
) -> jax.Array:
    """log pi_lambda / pi_0 of rows with win rates `of [..., num_objectives]`, `[...]`.

    Self-normalised over the data, which `win_rates` and `log_weights` are of.
    """
    slope = coefficients(duals) / tau
    return of @ slope - jax.nn.logsumexp(log_weights + win_rates @ slope)


def _refreshed(duals: Duals, rules: Rules) -> Duals:
    adapted = duals.levels * duals.lagged_bounds if rules.adaptive else duals.thresholds
    return duals._replace(
        thresholds=adapted, reference=duals.lagged, lagged=coefficients(duals),
        lagged_bounds=duals.bounds,
    )  # fmt: skip


def _constrained(
    primary: jax.Array,
    multipliers: jax.Array,
    win_rates: jax.Array,
    reference: jax.Array,
    tau: float,
) -> jax.Array:
    """rho q of every objective, `[rows, num_objectives]`, of the normalised rho."""
    ratios = log_ratios(win_rates @ primary, win_rates, multipliers, tau)
    return normalised_ratios(ratios, reference)[:, None] * win_rates
