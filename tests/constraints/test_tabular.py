"""The problem of `test_lagrangian`, with a ball so small that the bounds are nearly the values."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from paretohqd_jax.config.structure_study import STRUCTURES
from paretohqd_jax.constraints.tabular import Problem, problem, solve, train
from paretohqd_jax.studies.structures import preference_probabilities

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


def test_no_policy_that_holds_as_much_is_better_than_the_optimum():
    """By another way, sequential quadratic programming: held near what the data have of each."""
    reference = np.array([0.3, 0.25, 0.18, 0.12, 0.09, 0.06])
    found = jax.jit(partial(solve, max_multiplier=10.0))
    bound = []
    for structure in STRUCTURES:
        preferences = preference_probabilities(structure, 3, 6)
        task = problem(preferences, jnp.asarray(reference, jnp.float32), 0.3, 0.001)
        primary, secondary = np.float64(task.primary), np.float64(task.secondary)
        values = reference @ secondary
        policy, multipliers = found(task, jnp.asarray(0.9 * values, jnp.float32))
        assert multipliers.max() < 10
        bound.append(multipliers.max() > 0.1)
        least = np.float64(policy) @ secondary

        def loss(tried, primary=primary):
            tried = np.maximum(tried, 1e-12)
            return 0.3 * tried @ np.log(tried / reference) - tried @ primary

        constraints = [
            {"type": "eq", "fun": lambda tried: tried.sum() - 1},
            {"type": "ineq", "fun": lambda tried, q=secondary, b=least: tried @ q - b},
        ]
        best = minimize(
            loss, reference, method="SLSQP", constraints=constraints, bounds=[(0, 1)] * 6,
            options={"ftol": 1e-12, "maxiter": 300},
        )  # fmt: skip
        assert best.success
        np.testing.assert_allclose(policy, best.x, atol=1e-3, err_msg=structure)
    assert sum(bound) >= 3  # structures
