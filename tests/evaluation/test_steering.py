"""Measures of obedience to preferences, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paretohqd_jax.evaluation.steering import inner_products, kendall, spearman, steerability


def test_inner_products():
    preferences = np.array([(1.0, 0.0), (0.5, 0.5)])
    assert inner_products(preferences, np.array([(2.0, -1.0), (1.0, 2.0)])) == (2 + 1.5) / 2


def test_kendall_of_each_objective():
    preferences = np.array([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
    points = np.array([(1.0, 1.0), (3.0, 2.0), (2.0, 3.0)])
    # Of three pairs two agree and one does not; in the other objective none does.
    assert kendall(preferences, points) == pytest.approx([1 / 3, -1])


def test_weights_equal_but_for_the_last_bit_are_ties_and_no_spread_is_0():
    preferences = np.array([(0.1 + 0.2, 0.7), (0.3, 0.7), (0.6, 0.4)])
    points = np.array([(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)])
    # Two of three pairs agree, one is tied in weight: 2 / sqrt(2 * 3).
    assert kendall(preferences, points) == pytest.approx([2 / np.sqrt(6), 0])


def test_steerability_of_each_objective():
    preferences = np.array([(0.1 * i, 1 - 0.1 * i) for i in range(11)])
    points = np.stack([preferences[:, 0] ** 3, preferences[:, 0]], axis=1)
    assert steerability(preferences, points) == pytest.approx([1.0, -1.0])


def test_models_in_perfect_order_reach_1_where_weights_tie():
    preferences = np.array([(0.1 + 0.2, 0.7), (0.3, 0.7), (0.6, 0.4)])
    points = np.array([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)])
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: Spearman's is sqrt(3) / 2, and no order has more. Weights
    # that are equal but for the last bit tie.
    assert steerability(preferences, points) == pytest.approx([1.0, 0.0])
    assert steerability(preferences, -points) == pytest.approx([-1.0, 0.0])


values = hnp.arrays(np.float64, 7, elements=st.integers(0, 4).map(float))


@given(values, values)
def test_spearman_agrees_with_scipy_on_tied_values(a, b):
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert spearman(a, b) == 0
    else:
        assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_steerability_without_ties_is_spearmans_of_each_of_many_fronts():
    random = np.random.default_rng(0)
    preferences, points = random.random((7, 3)), random.random((4, 7, 3))
    expected = [[spearman(preferences[:, m], run[:, m]) for m in range(3)] for run in points]
    np.testing.assert_allclose(steerability(preferences, points), expected, atol=1e-12)


def test_the_ten_point_grid_of_three_objectives_reaches_1():
    from paretohqd_jax.pareto import preference_grid

    grid = np.asarray(preference_grid(10, 3))
    np.testing.assert_allclose(steerability(grid, grid), 1)
    np.testing.assert_allclose(steerability(grid, grid + 1e-3 * np.arange(30).reshape(10, 3)), 1)
