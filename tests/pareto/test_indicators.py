from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import (
    crowding_distance,
    epsilon_indicator,
    generational_distance,
    igd_plus,
    spacing,
    sparsity,
)

LINE = np.array([(0.0, 4.0), (4.0, 0.0), (1.0, 3.0), (3.0, 1.0)])


def test_crowding_distance():
    expected = [np.inf, np.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4]
    np.testing.assert_allclose(crowding_distance(LINE), expected)
    flat = np.column_stack([LINE, np.ones(4)])
    np.testing.assert_allclose(crowding_distance(flat), expected)
    assert np.isinf(crowding_distance(LINE[:2])).all()
    assert crowding_distance(np.zeros((0, 2))).shape == (0,)
    jitted = jax.jit(lambda r: crowding_distance(r, validate=False))
    np.testing.assert_allclose(jitted(LINE), expected)


def test_igd_plus():
    assert igd_plus(LINE, LINE) == 0
    assert igd_plus(LINE + 1, LINE) == 0  # better points have no shortfall
    assert igd_plus(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, -1.0]])) == 2.5
    gradient = jax.grad(lambda p: igd_plus(p, LINE, validate=False))(jnp.asarray(LINE) - 0.25)
    assert np.isfinite(gradient).all() and (gradient <= 0).all() and gradient.any()
    at_zero = jax.grad(lambda p: igd_plus(p, LINE, validate=False))(jnp.asarray(LINE))
    assert np.isfinite(at_zero).all()


def test_epsilon_indicator():
    assert epsilon_indicator(LINE, LINE) == 0
    assert epsilon_indicator(LINE + 1, LINE) == -1
    assert epsilon_indicator(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 1.0]])) == 4
    jitted = jax.jit(lambda p: epsilon_indicator(p, LINE, validate=False))
    assert float(jitted(LINE - 0.5)) == pytest.approx(0.5)


def test_generational_distance():
    assert generational_distance(LINE[:1], LINE) == 0  # however little of it
    points = np.array([[3.0, 4.0], [5.0, 0.0]])
    # (3, 4) is 3 away from (0, 4), and (5, 0) is 1 away from (4, 0).
    ends = LINE[:2]
    assert generational_distance(points, ends) == 2
    slope = jax.grad(lambda p: generational_distance(p, ends, validate=False))(jnp.asarray(points))
    np.testing.assert_allclose(slope, [[0.5, 0], [0.5, 0]])


def test_spacing():
    assert spacing(np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0]])) == 0
    # Gaps of 2, 2 and 6, whose mean is 10/3: squares 16/9 + 16/9 + 64/9, half of which is 16/3.
    uneven = np.array([[0.0, 4.0], [4.0, 0.0], [1.0, 3.0]])
    assert spacing(uneven) == pytest.approx(np.sqrt(16 / 3))
    assert spacing(LINE[:2]) == spacing(LINE[:1]) == 0
    jitted = jax.jit(lambda p: spacing(p, validate=False))
    assert float(jitted(uneven)) == pytest.approx(np.sqrt(16 / 3))
    even = jax.grad(lambda p: spacing(p, validate=False))(jnp.asarray(LINE))
    assert np.isfinite(even).all()


def test_sparsity():
    # In either objective gaps of 1 and 3 between three points: (1 + 9) + (1 + 9) over 2.
    assert sparsity(np.array([[0.0, 4.0], [4.0, 0.0], [1.0, 3.0]])) == 10
    assert sparsity(LINE) == (1 + 4 + 1) * 2 / 3 and sparsity(LINE[:1]) == 0
    jitted = jax.jit(lambda p: sparsity(p, validate=False))
    assert float(jitted(LINE)) == pytest.approx(4)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="points: there are none"):
        spacing(np.zeros((0, 2)))
    with pytest.raises(InputError, match="points: inf in row 1"):
        sparsity(np.array([[0.0, 0.0], [np.inf, 0.0]]))
    with pytest.raises(InputError, match="shapes"):
        igd_plus(LINE, np.zeros((2, 3)))
    with pytest.raises(InputError, match="front: nan in row 0"):
        epsilon_indicator(LINE, np.array([[np.nan, 0.0]]))


def test_crowding_distance_of_a_huge_range():
    huge = jnp.asarray([[-3e38], [0.0], [3e38], [1.5e38]], jnp.float32)
    np.testing.assert_allclose(crowding_distance(huge), [np.inf, 0.75, np.inf, 0.5])
