"""The problem of `test_lagrangian`, with a ball so small that the bounds are nearly the values."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.constraints.tabular import Problem, problem, solve, train

PROBLEM = Problem(
    jnp.array([0.2, 0.5, 0.8, 0.9]),
    jnp.array([[0.9], [0.6], [0.4], [0.1]]),
    jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1])),
    tau=0.3,
    epsilon=1e-5,
)
optimum = jax.jit(partial(solve, PROBLEM, max_multiplier=50.0))
trained = jax.jit(
    partial(train, PROBLEM, num_steps=3000, learning_rate=1.0, multiplier_rate=2.0, chi_rate=0.5)
)


@pytest.mark.parametrize(
    ("threshold", "multiplier"), [(0.3, 0.0), (0.55, 0.636984), (0.65, 1.114899), (0.95, 50.0)]
)
def test_the_optimum_has_the_multiplier_of_the_worked_example(threshold, multiplier):
    """0 where the constraint has slack, the largest one where no policy reaches the threshold."""
    found = optimum(jnp.array([threshold]))
    np.testing.assert_allclose(found.multipliers, [multiplier], rtol=1e-2)
    if threshold == 0.65:
        expected = [0.420761, 0.281318, 0.242440, 0.055481]
        np.testing.assert_allclose(found.policy, expected, atol=5e-3)


def test_training_finds_the_optimum():
    for threshold in (0.3, 0.6):
        found, path = trained(jnp.array([threshold]))
        np.testing.assert_allclose(found.policy, optimum(jnp.array([threshold])).policy, atol=1e-3)
        assert path.shape == (3000, 1) and path[-1] == found.multipliers


def test_win_rates_are_over_opponents_of_the_reference():
    preferences = jnp.array([[[0.5, 1.0], [0.0, 0.5]], [[0.5, 0.2], [0.8, 0.5]]])
    made = problem(preferences, jnp.array([0.25, 0.75]), 0.3, 0.01)
    np.testing.assert_allclose(made.primary, [0.875, 0.375])
    np.testing.assert_allclose(made.secondary, [[0.275], [0.575]])
