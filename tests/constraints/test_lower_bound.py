"""Numbers are those of the worked example of `test_lagrangian`, at the multiplier 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.constraints.lower_bound import (
    best_log_chi,
    initial_log_chi,
    lower_bound,
    worst_case,
)

LOG_WEIGHTS = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
VALUES = jnp.array([0.951678, 0.951678, 1.328174, 0.681907]) * jnp.array([0.9, 0.6, 0.4, 0.1])
best = jax.jit(best_log_chi)


@pytest.mark.parametrize(
    ("epsilon", "chi", "bound"),
    [
        (0.001, 5.324127, 0.616407),
        (0.01, 1.733879, 0.593036),
        (0.05, 0.812190, 0.549131),
        (0.15, 0.492028, 0.488145),
    ],
)
def test_worked_example(epsilon, chi, bound):
    log_chi = best(VALUES, epsilon, LOG_WEIGHTS)
    # The bound is flat at its maximum, and the divergence there a difference of near numbers.
    np.testing.assert_allclose(jnp.exp(log_chi), chi, rtol=1e-3)
    np.testing.assert_allclose(lower_bound(VALUES, log_chi, epsilon, LOG_WEIGHTS), bound, atol=4e-6)
    log_worst = worst_case(VALUES, log_chi, LOG_WEIGHTS)
    worst = jnp.exp(log_worst)
    np.testing.assert_allclose(worst @ (log_worst - LOG_WEIGHTS), epsilon, rtol=2e-3)
    np.testing.assert_allclose(worst @ VALUES, bound, atol=2e-5)
    np.testing.assert_allclose(initial_log_chi(VALUES, epsilon, LOG_WEIGHTS), log_chi, atol=0.25)
    slope = jax.grad(lower_bound, argnums=1)(VALUES, log_chi, epsilon, LOG_WEIGHTS)
    assert abs(slope) < 1e-4


def test_the_bound_falls_from_the_mean_to_the_least_value():
    radii = (1e-4, 1e-2, 0.1, 1.0, 2.3)
    bounds = [
        float(lower_bound(VALUES, best(VALUES, radius, LOG_WEIGHTS), radius, LOG_WEIGHTS))
        for radius in radii
    ]
    mean = float(jnp.exp(LOG_WEIGHTS) @ VALUES)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == pytest.approx(mean, abs=5e-3) and bounds[0] < mean
    assert bounds[-1] == pytest.approx(float(VALUES.min()), abs=2e-3)
