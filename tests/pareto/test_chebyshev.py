from __future__ import annotations

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import PREFERENCES_A, SET_A
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import (
    chebyshev_distance,
    largest_weighted_sum,
    nearest_to_ray,
    preference_grid,
    select,
    smallest_chebyshev_distance,
)

UNIT = np.zeros(2), np.ones(2)
BOX_A = [0, 0], [10, 10]
GOLDEN_A = {
    0.0: {
        (1, 0): ([5, 4, 9, 3], [1, 100, 200, 300]),
        (0.8, 0.2): ([4, 9, 5, 3], [1.125, 1.1875, 1.25, 1.5]),
        (0.5, 0.5): ([2, 12, 3, 7], [1, 1, 1.2, 1.2]),
        (0.2, 0.8): ([1, 6, 0, 2], [1, 1.125, 1.25, 1.5]),
        (0, 1): ([0, 1, 6, 2], [1, 100, 200, 300]),
    },
    0.05: {
        (1, 0): ([5, 4, 9, 3], [1.05, 105.045, 210.0475, 315.03]),
        (0.8, 0.2): ([4, 9, 5, 3], [1.20625, 1.296875, 1.3125, 1.6125]),
        (0.5, 0.5): ([2, 12, 3, 7], [1.08, 1.08, 1.29, 1.3]),
        (0.2, 0.8): ([1, 6, 0, 2], [1.075, 1.23125, 1.3125, 1.60625]),
        (0, 1): ([0, 1, 6, 2], [1.05, 105.04, 210.045, 315.025]),
    },
}
RANDOM = np.random.default_rng(0).normal(size=(2000, 3))
CLOSEST_RANDOM = {
    0.0: [1408, 1025, 1501, 612, 201, 1654, 1538, 1602, 1094, 664],
    0.05: [1408, 1501, 1025, 612, 1654, 201, 1538, 1602, 1878, 664],
}


@pytest.mark.parametrize("augmentation", GOLDEN_A)
@pytest.mark.parametrize("min_pool_size", [8, 0])
def test_worked_example(augmentation, min_pool_size):
    golden = GOLDEN_A[augmentation]
    preferences = np.array(list(golden))
    chosen = select(
        SET_A, preferences, 4, min_pool_size, rule="chebyshev", augmentation=augmentation
    )
    assert (chosen.ranks >= 0).sum() == (15 if min_pool_size == 0 else 11)
    assert chosen.row_ids.tolist() == [ids for ids, _ in golden.values()]
    np.testing.assert_allclose(chosen.distances, [d for _, d in golden.values()], atol=1e-12)
    every = chebyshev_distance(SET_A, preferences, *BOX_A, augmentation=augmentation)
    found = np.take_along_axis(every, chosen.row_ids, axis=1)
    np.testing.assert_allclose(found, chosen.distances, atol=1e-12)


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [(0.0, [0, 0, 0, 0, 1, 3, 5, 6, 8, 9, 10]), (0.05, [0, 0, 0, 0, 1, 3, 5, 6, 10, 10, 10])],
)
def test_rows_in_the_hollow_of_a_front_are_found(augmentation, expected):
    first = np.arange(11) / 10
    hollow = np.stack([first, 1 - np.sqrt(1 - (1 - first) ** 2)], axis=1)
    ids, _ = smallest_chebyshev_distance(
        hollow, preference_grid(11), 1, *UNIT, augmentation=augmentation
    )
    assert ids[:, 0].tolist() == expected


@pytest.mark.parametrize("augmentation", CLOSEST_RANDOM)
@pytest.mark.parametrize("rewards", [RANDOM, RANDOM * (3, 0.1, 70) + (5, -2, 9)])
def test_random_example(rewards, augmentation):
    chosen = select(rewards, [(0.6, 0.2, 0.2)], 10, rule="chebyshev", augmentation=augmentation)
    assert chosen.row_ids.tolist() == [CLOSEST_RANDOM[augmentation]]


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_order_agrees_with_brute_force(num_objectives, num_rows, seed, ties):
    rng = np.random.default_rng(seed)
    if ties:
        rewards = rng.integers(0, 4, (num_rows, num_objectives)).astype(np.float32)
    else:
        rewards = rng.normal(size=(num_rows, num_objectives)) * 10.0 ** rng.integers(-3, 3)
    preferences = rng.multinomial(8, np.ones(num_objectives) / num_objectives, size=3) / 8
    low, high = rewards.min(axis=0), rewards.max(axis=0)
    high = high - rng.integers(0, 2) * 0.3 * (high - low)  # rows beyond the ideal point
    k = int(rng.integers(1, num_rows + 1))
    options = {"augmentation": rng.choice([0.0, 0.01, 2.0]), "min_gap": rng.choice([1e-3, 0.2])}
    ids, distances = smallest_chebyshev_distance(rewards, preferences, k, low, high, **options)
    expected = brute_force.smallest_chebyshev(rewards, preferences, k, low, high, **options)
    np.testing.assert_array_equal(ids, expected)
    every = chebyshev_distance(rewards, preferences, low, high, **options)
    assert every.dtype == np.float64
    np.testing.assert_allclose(distances, np.take_along_axis(every, ids, 1), rtol=1e-12)


@pytest.mark.parametrize("num_rows", [70, 5000])
@pytest.mark.parametrize("kind", ["gauss", "ties", "equal", "one bad row"])
def test_many_rows_with_candidates(num_rows, kind):
    rng = np.random.default_rng(num_rows)
    rewards = rng.normal(size=(num_rows, 3)).astype(np.float32)
    if kind == "one bad row":
        rewards[7] = -1e6
    rewards = {"ties": np.round(rewards), "equal": rewards * 0}.get(kind, rewards)
    preferences = preference_grid(6, 3)
    candidates = rng.random(num_rows) < 0.7
    low, high = rewards.min(axis=0), rewards.max(axis=0)
    ids, distances = smallest_chebyshev_distance(
        rewards, preferences, 40, low, high, candidates=candidates
    )
    rows = np.flatnonzero(candidates)
    expected = rows[brute_force.smallest_chebyshev(rewards[rows], preferences, 40, low, high)]
    np.testing.assert_array_equal(ids, expected)
    traced = jax.jit(
        lambda r, c: smallest_chebyshev_distance(
            r, preferences, 40, low, high, candidates=c, validate=False
        )
    )
    traced_ids, traced_distances = traced(rewards, candidates)
    np.testing.assert_array_equal(traced_ids, expected)
    np.testing.assert_allclose(traced_distances, distances, rtol=1e-6, atol=1e-7)


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(10, 150), st.integers(0, 2**32 - 1), st.booleans())
def test_invariants(num_objectives, num_rows, seed, ties):
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 6 if ties else 10**6, (num_rows, num_objectives)).astype(float)
    rewards[:2] = [[0], [5 if ties else 10**6]]  # a box whose sides affine maps keep exact
    preferences = rng.dirichlet(np.ones(num_objectives), size=3)

    def chosen(rewards, min_pool_size=0, **options):
        return select(rewards, preferences, 5, min_pool_size, rule="chebyshev", **options)

    result = chosen(rewards)
    assert (result.ranks >= 0).all()
    order = rng.permutation(num_rows)
    shuffled = chosen(rewards[order])
    np.testing.assert_array_equal(np.round(shuffled.distances, 9), np.round(result.distances, 9))
    if not ties:
        np.testing.assert_array_equal(order[shuffled.row_ids], result.row_ids)
    scales = 2.0 ** rng.integers(-3, 4, num_objectives)
    moved = chosen(rewards * scales + rng.integers(-8, 9, num_objectives))
    np.testing.assert_array_equal(moved.row_ids, result.row_ids)
    deepest = result.ranks[result.row_ids].max()
    smaller = chosen(rewards, max(5, (result.ranks <= deepest).sum()))
    np.testing.assert_array_equal(smaller.row_ids, result.row_ids)
    for ids in result.row_ids:
        better = (rewards[:, None] >= rewards[ids]).all(2) & (rewards[:, None] > rewards[ids]).any(
            2
        )
        assert np.isin(np.flatnonzero(better.any(axis=1)), ids).all()
    for ids in chosen(rewards, augmentation=0.0).row_ids:
        better = (rewards[:, None] > rewards[ids]).all(2)
        assert np.isin(np.flatnonzero(better.any(axis=1)), ids).all()


def test_corners_are_the_rows_with_most_of_one_objective():
    corners = PREFERENCES_A[[0, -1]]
    ids, _ = smallest_chebyshev_distance(SET_A, corners, 4, *BOX_A)
    np.testing.assert_array_equal(ids, nearest_to_ray(SET_A, corners, 4, *BOX_A)[0])


def test_a_large_augmentation_is_a_sum_weighted_by_the_gaps():
    ids, _ = smallest_chebyshev_distance(RANDOM, [[0.5, 0.5, 0]], 20, [-4] * 3, [4] * 3,
                                         augmentation=1e5)  # fmt: skip
    sums, _ = largest_weighted_sum(RANDOM, [[0.4, 0.4, 0.2]], 20, [-4] * 3, [4] * 3)
    np.testing.assert_array_equal(ids, sums)


def test_the_least_gap_makes_a_corner_less_strict():
    rewards = np.array([[1.0, 0.0], [0.9, 1.0]])
    for min_gap, expected in ((1e-3, 0), (0.5, 1)):
        ids, _ = smallest_chebyshev_distance(rewards, [[1, 0]], 1, *UNIT, min_gap=min_gap)
        assert ids.tolist() == [[expected]]


@pytest.mark.parametrize("options", [{"min_gap": 1e-100}, {"augmentation": 1e100}])
def test_gaps_too_small_for_float32_leave_no_row_out(options):
    rewards = np.random.default_rng(0).random((3000, 2))
    rewards[5] = 1, 0  # nothing is lacking where the gap is least
    ids, _ = smallest_chebyshev_distance(rewards, [[1, 0], [0.5, 0.5]], 9, *UNIT, **options)
    expected = brute_force.smallest_chebyshev(rewards, [[1, 0], [0.5, 0.5]], 9, *UNIT, **options)
    np.testing.assert_array_equal(ids, expected)


def test_without_normalisation_a_wide_objective_decides():
    rewards = SET_A * [1, 100]
    ids, distances = smallest_chebyshev_distance(
        rewards, [[0.5, 0.5]], 2, [0, 0], [10, 1000], normalize=False, augmentation=0
    )
    assert ids.tolist() == [[0, 1]] and distances.tolist() == [[20, 200]]


def test_one_objective_and_an_objective_without_range():
    rewards = np.array([[1.0, 7.0], [3.0, 7.0], [2.0, 7.0]])
    for columns, preference in (([0], [1.0]), ([0, 1], [0.5, 0.5]), ([0, 1], [0.0, 1.0])):
        some = rewards[:, columns]
        ids, distances = smallest_chebyshev_distance(
            some, [preference], 3, some.min(axis=0), some.max(axis=0)
        )
        assert ids.tolist() == [[1, 2, 0]] and np.isfinite(distances).all()


def test_under_jit_and_vmap():
    rewards = RANDOM[:300].astype(np.float32).reshape(3, 100, 3)
    preferences = preference_grid(6, 3)

    def choose(rewards):
        return select(rewards, preferences, 5, rule="chebyshev", validate=False)

    chosen = jax.jit(jax.vmap(choose))(rewards)
    for here, alone in zip(chosen.row_ids, rewards, strict=True):
        np.testing.assert_array_equal(here, choose(alone).row_ids)


def test_jax_input_is_float32_and_differentiable():
    rewards = jnp.asarray(SET_A, jnp.float32)
    distances = chebyshev_distance(rewards, PREFERENCES_A, *BOX_A)
    assert distances.dtype == jnp.float32
    np.testing.assert_allclose(
        distances, chebyshev_distance(SET_A, PREFERENCES_A, *BOX_A), rtol=1e-6
    )
    slope = jax.grad(lambda r: chebyshev_distance(r, [[0.8, 0.2]], *BOX_A, validate=False)[0, 9])(
        rewards
    )
    np.testing.assert_allclose(slope[9], [-0.01 / 2, -1.01 / 8], rtol=1e-6)
    assert not slope[0].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": -0.1}, "augmentation: -0.1; give"),
        ({"augmentation": np.nan}, "augmentation: nan; give"),
        ({"min_gap": 0}, "min_gap: 0; give a finite number above 0"),
        ({"min_gap": -1.0}, "min_gap: -1.0; give"),
        ({"min_gap": np.inf}, "min_gap: inf; give"),
    ],
)
def test_options_that_are_not_valid_are_named(options, message):
    with pytest.raises(InputError, match=message):
        smallest_chebyshev_distance(SET_A, [[0.5, 0.5]], 1, *BOX_A, **options)
    with pytest.raises(InputError, match=message):
        chebyshev_distance(SET_A, [[0.5, 0.5]], *BOX_A, **options)
    with pytest.raises(InputError, match=message):
        select(SET_A, [[0.5, 0.5]], 1, rule="chebyshev", **options)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="k: 9 rows wanted of 3"):
        smallest_chebyshev_distance(np.zeros((3, 2)), [[0.5, 0.5]], 9, *UNIT)
    with pytest.raises(InputError, match="preferences: row 0"):
        smallest_chebyshev_distance(SET_A, [[0.5, 0.9]], 1, *UNIT)
    with pytest.raises(InputError, match="finite difference"):
        chebyshev_distance(SET_A, [[0.5, 0.5]], [0, np.nan], [1, 1])
    with pytest.raises(InputError, match="row 1, objective 0"):
        chebyshev_distance(np.array([[0.0, 0.0], [np.nan, 0.0]]), [[0.5, 0.5]], *UNIT)
    with pytest.raises(InputError, match="16 rows wanted of 15"):
        select(SET_A, PREFERENCES_A, 16, rule="chebyshev")
    with pytest.raises(InputError, match="min_pool_size: 3 is below k"):
        select(SET_A, PREFERENCES_A, 4, 3, rule="chebyshev")
