"""MOPO of a policy that is a table: every response has a probability of its own.

Its optimum is known, so it says whether the updates find it: `solve` has the optimum by bisection,
`train` goes the way that a language model goes, by steps on policy, multipliers and chi at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.constraints.duals import Duals, Rules, go_on, start
from paretohqd_jax.constraints.lagrangian import log_ratios, normalised_ratios
from paretohqd_jax.constraints.lower_bound import best_log_chi, lower_bound

NUM_SWEEPS, NUM_HALVINGS, GRID_SIZE = 30, 30, 40


class Problem(NamedTuple):
    """Responses to one prompt.

    Attributes:
      primary: p, how often the primary objective prefers each to an opponent, `[responses]`.
      secondary: q, the same of the secondary objectives, `[responses, num_secondary]`.
      reference: log pi_ref, `[responses]`.
      tau: weight of the divergence from the reference.
      epsilon: radius of the ball in which the worst value of a constraint is taken.
    """

    primary: jax.Array
    secondary: jax.Array
    reference: jax.Array
    tau: float
    epsilon: float


class Solution(NamedTuple):
    """A policy `[responses]` and the multipliers `[num_secondary]` that it is optimal for."""

    policy: jax.Array
    multipliers: jax.Array


def problem(preferences: jax.Array, reference: jax.Array, tau: float, epsilon: float) -> Problem:
    """The problem of pairwise preferences, against opponents drawn from the reference.

    Args:
      preferences: probability that an objective prefers response y to y',
        `[num_objectives, responses, responses]`; the first objective is the primary one.
      reference: pi_ref, `[responses]`.
      tau: above 0.
      epsilon: above 0.
    """
    wins = preferences @ reference
    return Problem(wins[0], wins[1:].T, jnp.log(reference), tau, epsilon)


def ratios_of(problem: Problem, multipliers: jax.Array) -> jax.Array:
    """The normalised rho of each response, `[responses]`."""
    ratios = log_ratios(problem.primary, problem.secondary, multipliers, problem.tau)
    return normalised_ratios(ratios, problem.reference)


def constraint_values(problem: Problem, multipliers: jax.Array) -> jax.Array:
    """G_j, the lower bound of each secondary objective under pi_lambda, `[num_secondary]`."""
    ratios = ratios_of(problem, multipliers)

    def bound(secondary: jax.Array) -> jax.Array:
        values = ratios * secondary
        log_chi = best_log_chi(values, problem.epsilon, problem.reference)
        return lower_bound(values, log_chi, problem.epsilon, problem.reference)

    return jax.vmap(bound, in_axes=1)(problem.secondary)


def solve(problem: Problem, thresholds: jax.Array, max_multiplier: float) -> Solution:
    """The optimum: the least multipliers under which every bound reaches its threshold.

    A multiplier is sought while the others stay, and a few sweeps over all of them settle. A bound
    rises with its own multiplier at first; beyond, where few responses have all of the mass, its
    worst case may fall again. So a grid says where it first reaches the threshold, and bisection
    the rest. A multiplier at `max_multiplier` says that the threshold is out of reach.
    """
    grid = jnp.append(0.0, jnp.geomspace(1e-3 * max_multiplier, max_multiplier, GRID_SIZE))

    def seek(multipliers: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
        def reaches(multiplier: jax.Array) -> jax.Array:
            return constraint_values(problem, multipliers.at[j].set(multiplier))[j] >= thresholds[j]

        def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = (low + high) / 2
            enough = reaches(middle)
            return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

        enough = jax.vmap(reaches)(grid)
        first = jnp.where(jnp.any(enough), jnp.argmax(enough), GRID_SIZE)
        ends = (grid[jnp.maximum(first - 1, 0)], grid[first])
        return multipliers.at[j].set(jax.lax.fori_loop(0, NUM_HALVINGS, halve, ends)[1]), None

    num_secondary = problem.secondary.shape[1]
    order = jnp.tile(jnp.arange(num_secondary), NUM_SWEEPS if num_secondary > 1 else 1)
    multipliers, _ = jax.lax.scan(seek, jnp.zeros(num_secondary), order)
    return Solution(jnp.exp(problem.reference) * ratios_of(problem, multipliers), multipliers)


def train(
    problem: Problem,
    thresholds: jax.Array,
    num_steps: int,
    learning_rate: float,
    multiplier_rate: float,
    chi_rate: float,
) -> tuple[Solution, jax.Array]:
    """MOPO's updates with a reference that stays: chi up, lambda down the slack, policy cloned.

    Each step takes the duals on, as the training of a language model does (`constraints.duals`),
    and follows the gradient of E_ref[rho log pi] on the policy's logits (arXiv 2505.10892,
    algorithm 1).

    Returns:
      The policy and the multipliers after `num_steps`, and the multipliers after each of them,
      `[num_steps, num_secondary]`.
    """
    rules = Rules(
        problem.tau, problem.epsilon, jnp.inf, multiplier_rate, chi_rate, refresh_every=num_steps
    )
    win_rates = jnp.concatenate([problem.primary[:, None], problem.secondary], axis=1)
    primary = jnp.zeros(win_rates.shape[1]).at[0].set(1)
    thresholds = jnp.append(0.0, thresholds)
    duals = start(primary, thresholds, thresholds, win_rates, problem.reference, rules)

    def step(
        state: tuple[jax.Array, Duals], number: jax.Array
    ) -> tuple[tuple[jax.Array, Duals], jax.Array]:
        logits, duals = state
        duals = go_on(duals, win_rates, problem.reference, number, rules)
        multipliers = duals.multipliers[1:]
        cloned = jnp.exp(problem.reference) * ratios_of(problem, multipliers)
        logits = logits + learning_rate * (cloned - jax.nn.softmax(logits))
        return (logits, duals), multipliers

    (logits, duals), path = jax.lax.scan(step, (problem.reference, duals), jnp.arange(num_steps))
    return Solution(jax.nn.softmax(logits), duals.multipliers[1:]), path
