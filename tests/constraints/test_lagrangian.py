"""Numbers are those of a worked example of four responses, tau 0.3."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.constraints.lagrangian import (
    barrier_multipliers,
    descend,
    dual_value,
    effective_sample_size,
    log_ratios,
    normalised_ratios,
)

TAU = 0.3
REFERENCE = jnp.array([0.4, 0.3, 0.2, 0.1])
LOG_WEIGHTS = jnp.log(REFERENCE)
PRIMARY = jnp.array([0.2, 0.5, 0.8, 0.9])
SECONDARY = jnp.array([[0.9], [0.6], [0.4], [0.1]])
dual_gradient = jax.jit(jax.grad(dual_value))


def policy(multiplier: float) -> jax.Array:
    ratios = log_ratios(PRIMARY, SECONDARY, jnp.array([multiplier]), TAU)
    return REFERENCE * normalised_ratios(ratios, LOG_WEIGHTS)


@pytest.mark.parametrize(
    ("multiplier", "expected", "primary", "secondary", "divergence"),
    [
        (0, (0.107396, 0.218950, 0.396779, 0.276875), 0.697565, 0.414426, 0.343610),
        (0.5, (0.221153, 0.273465, 0.355092, 0.150289), 0.600297, 0.520183, 0.108688),
        (1, (0.380671, 0.285503, 0.265635, 0.068191), 0.492765, 0.626979, 0.016286),
        (2, (0.704149, 0.194281, 0.092806, 0.008764), 0.320103, 0.788301, 0.221209),
    ],
)
def test_the_policy_of_a_multiplier(multiplier, expected, primary, secondary, divergence):
    found = policy(multiplier)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found @ PRIMARY, primary, atol=2e-6)
    np.testing.assert_allclose(found @ SECONDARY[:, 0], secondary, atol=2e-6)
    np.testing.assert_allclose(found @ jnp.log(found / REFERENCE), divergence, atol=2e-6)


def test_ratios_of_equation_3_have_a_mean_of_their_own():
    ratios = jnp.exp(log_ratios(PRIMARY, SECONDARY, jnp.ones(1), TAU))
    np.testing.assert_allclose(ratios, [14.391916, 14.391916, 20.085537, 10.312259], rtol=1e-6)
    np.testing.assert_allclose(REFERENCE @ ratios, 15.122675, rtol=1e-6)
    normalised = normalised_ratios(jnp.log(ratios), LOG_WEIGHTS)
    np.testing.assert_allclose(normalised, [0.951678, 0.951678, 1.328174, 0.681907], atol=2e-6)


@pytest.mark.parametrize(
    ("threshold", "multiplier", "value"),
    [(0.55, 0.636984, 0.550741), (0.60, 0.870005, 0.513096), (0.65, 1.114899, 0.463544)],
)
def test_the_least_dual_value_is_the_constrained_maximum(threshold, multiplier, value):
    arguments = (PRIMARY, SECONDARY, jnp.array([threshold]), TAU, LOG_WEIGHTS)
    best = jnp.array([multiplier])
    np.testing.assert_allclose(dual_value(best, *arguments), value, atol=2e-6)
    np.testing.assert_allclose(dual_gradient(best, *arguments), [0.0], atol=2e-6)
    found = policy(multiplier)
    divergence = found @ jnp.log(found / REFERENCE)
    np.testing.assert_allclose(found @ PRIMARY - TAU * divergence, value, atol=2e-6)
    np.testing.assert_allclose(found @ SECONDARY[:, 0], threshold, atol=2e-6)


def test_the_gradient_is_the_slack_and_a_step_goes_down_to_0_at_most():
    random = np.random.default_rng(0)
    primary, secondary = (jnp.asarray(random.random(shape)) for shape in ((6,), (6, 2)))
    thresholds, multipliers = jnp.array([0.3, 0.9]), jnp.array([0.4, 1.2])
    arguments = (primary, secondary, thresholds, TAU, jnp.log(jnp.full(6, 1 / 6)))
    slacks = dual_gradient(multipliers, *arguments)
    policy = normalised_ratios(log_ratios(primary, secondary, multipliers, TAU), arguments[-1]) / 6
    np.testing.assert_allclose(slacks, policy @ secondary - thresholds, atol=1e-6)
    step = 1e-3
    for j in range(2):
        ahead, behind = (
            dual_value(multipliers.at[j].add(sign * step), *arguments) for sign in (1, -1)
        )
        np.testing.assert_allclose((ahead - behind) / (2 * step), slacks[j], atol=2e-4)
    assert (descend(multipliers, jnp.array([1.0, -1.0]), 0.5) == jnp.array([0.0, 1.7])).all()


def test_barrier_multipliers_rise_smoothly_beyond_the_margin():
    slacks = jnp.array([0.5, 0.1, 0.01, 0.0, -0.1])
    found = barrier_multipliers(slacks, sharpness=2.0, margin=0.01)
    np.testing.assert_allclose(found, [1.0, 5.0, 50.0, 100.0, 600.0], rtol=1e-5)


def test_the_effective_sample_size_counts_rows_of_equal_weight():
    assert effective_sample_size(jnp.ones(7)) == 7
    assert effective_sample_size(jnp.array([3.0, 0.0, 0.0])) == 1
