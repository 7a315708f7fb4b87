"""The problem of `test_lagrangian`, whose optima are known, by steps on its duals."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.constraints.duals import (
    Rules,
    coefficients,
    go_on,
    log_densities,
    rehearse,
    start,
)
from paretohqd_jax.constraints.lower_bound import best_log_chi, lower_bound, raise_bound

LOG_WEIGHTS = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
WIN_RATES = jnp.array([[0.2, 0.9], [0.5, 0.6], [0.8, 0.4], [0.9, 0.1]])
PRIMARY = jnp.array([1.0, 0.0])
RULES = Rules(0.3, 1e-5, 50.0, 2.0, 0.5, refresh_every=1000)


def first(threshold, rules=RULES, level=1.0):
    levels, thresholds = jnp.array([0.0, level]), jnp.array([0.0, threshold])
    return start(PRIMARY, levels, thresholds, WIN_RATES, LOG_WEIGHTS, rules)


def rehearsed(threshold, num_steps, rules=RULES, level=1.0):
    run = jax.jit(partial(rehearse, rules=rules, num_steps=num_steps))
    return run(first(threshold, rules, level), WIN_RATES, LOG_WEIGHTS)


def test_the_duals_end_at_the_optimum_of_the_worked_example():
    run = jax.jit(partial(rehearse, rules=RULES, num_steps=500))
    for threshold, multiplier in [(0.3, 0.0), (0.55, 0.636984), (0.65, 1.114899)]:
        path = run(first(threshold), WIN_RATES, LOG_WEIGHTS)
        last = jax.tree.map(lambda leaf: leaf[-1], path)
        np.testing.assert_allclose(last.multipliers, [0, multiplier], rtol=2e-2)
        slack = last.bounds[1] - threshold
        assert slack > -1e-4 and slack * multiplier == pytest.approx(0, abs=1e-4)
        densities = log_densities(last, WIN_RATES, WIN_RATES, LOG_WEIGHTS, RULES.tau)
        policy = jnp.exp(densities + LOG_WEIGHTS)
        assert policy.sum() == pytest.approx(1)
        expected = max(threshold, 0.414426)  # which the primary objective alone has
        assert policy @ WIN_RATES[:, 1] == pytest.approx(expected, abs=5e-3)


def test_the_reference_is_the_policy_of_so_many_steps_ago_and_thresholds_follow_its_bound():
    rules = RULES._replace(refresh_every=4, adaptive=True)
    path = rehearsed(0.6, 10, rules, level=0.9)
    np.testing.assert_allclose(path.reference[:8], 0)  # at step 4 it is that of step 0: the data
    at_step_4 = path.multipliers[3] + PRIMARY
    np.testing.assert_allclose(path.reference[8:], [at_step_4] * 2)
    values = jnp.exp(LOG_WEIGHTS) @ WIN_RATES
    expected = [0.6] * 4 + [0.9 * float(values[1])] * 4 + [0.9 * float(path.bounds[3, 1])] * 2
    np.testing.assert_allclose(path.thresholds[:, 1], expected, rtol=1e-6)
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    np.testing.assert_allclose(coefficients(last), last.reference + PRIMARY + last.multipliers)
    # The bound is that of the policy under the reference, which the data are re-weighted to.
    before = jax.tree.map(lambda leaf: leaf[-2], path)
    weights = jax.nn.softmax(LOG_WEIGHTS + WIN_RATES @ at_step_4 / rules.tau)
    ratios = jnp.exp((WIN_RATES @ PRIMARY + WIN_RATES @ before.multipliers) / rules.tau)
    values = ratios / (weights @ ratios) * WIN_RATES[:, 1]
    np.testing.assert_allclose(
        last.bounds[1],
        lower_bound(values, last.log_chi[1], rules.epsilon, jnp.log(weights)),
        rtol=1e-5,
    )


def test_a_run_may_be_cut_anywhere():
    step = jax.jit(partial(go_on, rules=RULES._replace(refresh_every=2)))
    whole = rehearsed(0.6, 5, RULES._replace(refresh_every=2))
    duals = first(0.6)
    for number in range(5):
        duals = step(duals, WIN_RATES, LOG_WEIGHTS, jnp.int32(number))
    last = jax.tree.map(lambda leaf: leaf[-1], whole)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), duals, last)


def test_the_barrier_keeps_a_slack():
    rules = RULES._replace(sharpness=50.0)
    last = jax.tree.map(lambda leaf: leaf[-1], rehearsed(0.55, 500, rules))
    slack = last.bounds[1] - 0.55
    assert slack > 0.01  # the Lagrangian leaves none
    # Where lambda is below 1 the barrier is the logarithm, beyond its parabola.
    assert last.multipliers[1] == pytest.approx(1 / (50 * float(slack)), rel=1e-2)


@pytest.mark.parametrize(("epsilon", "distance"), [(0.001, 4.0), (0.15, -4.0)])
def test_chi_climbs_to_the_best_bound_from_afar_at_any_scale(epsilon, distance):
    values = 100 * WIN_RATES[:, 1]
    best = best_log_chi(values, epsilon, LOG_WEIGHTS)
    climb = jax.jit(partial(raise_bound, epsilon=epsilon, log_weights=LOG_WEIGHTS, rate=0.5))
    log_chi = best + distance
    for _ in range(60):
        log_chi = climb(values, log_chi)
    np.testing.assert_allclose(log_chi, best, atol=1e-2)
