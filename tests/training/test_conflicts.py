from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from paretohqd_jax.errors import InputError
from paretohqd_jax.training.conflicts import least_served, raco_coefficients

least_served_jitted = jax.jit(least_served)


def gram_of(gradients: np.ndarray) -> jax.Array:
    return jnp.asarray(gradients @ gradients.T, jnp.float32)


def value(gradients: np.ndarray, weights: np.ndarray, radius: float, point: np.ndarray) -> float:
    combined = point @ gradients
    return (weights @ gradients) @ combined + radius * np.linalg.norm(combined)


@pytest.mark.parametrize(
    ("gradients", "weights", "point", "step", "least"),
    [
        ([[1, 0], [-0.5, 1]], [0.7, 0.3], [0, 1], [0.437929, 0.524143], 0.305179),
        ([[1, 2], [2, -1]], [0.5, 0.5], [0.5, 0.5], [2.1, 0.7], 3.5),
        ([[1, 0], [-2, 0.5]], [0.8, 0.2], [0, 1], [0.24, 0.14], -0.41),
        (
            [[1, 0, 0], [-0.5, 1, 0], [-0.2, -0.6, 1]],
            [0.5, 0.3, 0.2],
            [0, 0.525897, 0.474103],
            [0.215289, 0.269726, 0.299695],
            0.132643,
        ),
    ],
)
def test_worked_examples(gradients, weights, point, step, least):
    gradients, weights = np.array(gradients, float), np.array(weights)
    gram, radius = gram_of(gradients), 0.4 * np.linalg.norm(weights @ gradients)
    found = least_served(gram, gram @ jnp.asarray(weights), radius)
    np.testing.assert_allclose(found, point, atol=3e-6)
    assert value(gradients, weights, radius, np.asarray(found)) == pytest.approx(least, abs=1e-6)
    coefficients = raco_coefficients(gram, jnp.asarray(weights, jnp.float32), 0.4)
    np.testing.assert_allclose(coefficients @ gradients, step, atol=3e-6)


def simplex_grid(num_objectives: int, steps: int) -> np.ndarray:
    points = np.indices((steps + 1,) * num_objectives).reshape(num_objectives, -1).T
    return points[points.sum(axis=1) == steps] / steps


GRID = simplex_grid(3, 40)


@hypothesis.given(
    gradients=arrays(np.float32, (3, 2), elements=st.floats(-4, 4, width=16)),
    weights=st.sampled_from([(1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1), (0.0, 0.5, 0.5)]),
    conflict=st.sampled_from([0.0, 0.4, 0.9]),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_point_of_the_simplex_is_served_worse(gradients, weights, conflict):
    """Also where gradients are null, parallel or opposed."""
    gradients, weights = gradients.astype(float), np.array(weights)
    gram, radius = gram_of(gradients), conflict * np.linalg.norm(weights @ gradients)
    point = np.asarray(
        least_served_jitted(gram, gram @ jnp.asarray(weights, jnp.float32), jnp.float32(radius))
    )
    assert point.min() >= 0 and point.sum() == pytest.approx(1, abs=1e-5)
    least = min(value(gradients, weights, radius, other) for other in GRID)
    scale = max(float(np.max(np.sum(gradients**2, axis=1))), 1e-30)
    assert value(gradients, weights, radius, point) <= least + 1e-3 * scale


def test_without_conflict_aversion_the_weights_remain():
    gram = gram_of(np.random.default_rng(0).normal(size=(4, 9)))
    weights = jnp.array([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_array_equal(raco_coefficients(gram, weights, 0.0), weights)


def test_null_gradients_and_opposed_ones_give_finite_steps():
    weights = jnp.array([0.5, 0.5])
    np.testing.assert_array_equal(raco_coefficients(jnp.zeros((2, 2)), weights, 0.4), weights)
    opposed = raco_coefficients(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), weights, 0.4)
    assert np.isfinite(opposed).all()


def test_too_many_objectives_are_refused():
    with pytest.raises(InputError, match="11 objectives; RACO takes up to 10"):
        least_served(jnp.eye(11), jnp.ones(11), jnp.float32(1))
