"""Measures of obedience to preferences, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.evaluation.steering import inner_product, kendall


def test_inner_product():
    preferences = np.array([(1.0, 0.0), (0.5, 0.5)])
    assert inner_product(preferences, np.array([(2.0, -1.0), (1.0, 2.0)])) == (2 + 1.5) / 2


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
