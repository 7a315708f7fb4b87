"""Which trained preferences serve one that is not among them."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import preference_grid
from paretohqd_jax.pareto.neighbours import mixture_weights, nearest_preference


def test_the_nearest_and_of_equals_the_first():
    grid = preference_grid(5)
    assert nearest_preference(grid, np.array([0.7, 0.3])) == 3
    assert nearest_preference(grid, np.array([0.375, 0.625])) == 1
    assert nearest_preference(grid[::-1], np.array([0.375, 0.625])) == 2


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_two_objectives_mix_the_two_neighbours(order):
    grid = preference_grid(5)[order]
    weights = mixture_weights(grid, np.array([0.6, 0.4]))
    expected = np.array([0, 0, 0.6, 0.4, 0])[order]
    np.testing.assert_allclose(weights, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["ric-13", 66])
def test_three_objectives_mix_the_corners_of_a_small_simplex(name):
    grid = preference_grid(name, 3)
    for preference in np.random.default_rng(0).dirichlet(np.ones(3), 20):
        weights = mixture_weights(grid, preference)
        assert weights.min() >= 0 and np.count_nonzero(weights) <= 3
        np.testing.assert_allclose(weights.sum(), 1)
        np.testing.assert_allclose(weights @ grid, preference, atol=1e-6)
        if name == 66:  # a lattice in steps of 0.1: its triangles are that long
            assert np.abs(grid[weights > 0] - preference).max() <= 0.1 + 1e-9


def test_a_trained_preference_is_itself_and_an_edge_stays_on_the_edge():
    grid = preference_grid("ric-13", 3)
    np.testing.assert_allclose(mixture_weights(grid, grid[4]), np.eye(13)[4], atol=1e-6)
    weights = mixture_weights(grid, np.array([0.3, 0.7, 0.0]))
    np.testing.assert_allclose(weights @ grid, [0.3, 0.7, 0.0], atol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(weights), [1, 12])


@pytest.mark.parametrize(
    ("trained", "preference", "nearest"),
    [
        ([[0.8, 0.2], [0.5, 0.5]], [0.9, 0.1], "0.8,0.2"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.4, 0.5, 0.1], "0,1,0"),
        ([[0.5, 0.5]], [0.4, 0.6], "0.5,0.5"),
    ],
)
def test_outside_the_trained_ones_nothing_is_in_between(trained, preference, nearest):
    with pytest.raises(InputError, match=f"outside the trained ones.*nearest of them is {nearest}"):
        mixture_weights(np.array(trained), np.array(preference))
