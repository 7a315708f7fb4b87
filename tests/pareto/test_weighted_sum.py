from __future__ import annotations

import jax
import numpy as np
import pytest
from examples import PREFERENCES_A, SET_A
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import (
    hypervolume,
    largest_weighted_sum,
    nearest_to_ray,
    preference_grid,
    select,
)

FIRST = np.arange(11) / 10
BELOW_CHORD = np.stack([FIRST, 1 - np.sqrt(1 - (1 - FIRST) ** 2)], axis=1)
CIRCLE = np.stack([FIRST, np.sqrt(1 - FIRST**2)], axis=1)
UNIT = np.zeros(2), np.ones(2)


def test_only_the_ends_of_a_hollow_front_are_found():
    ids, gaps = largest_weighted_sum(BELOW_CHORD, preference_grid(11), 1, *UNIT)
    assert ids[:, 0].tolist() == [0] * 6 + [10] * 5  # the tie at (.5, .5) goes to the smaller id
    np.testing.assert_allclose(gaps[5, 0], 0.5)
    ids, _ = largest_weighted_sum(CIRCLE, preference_grid(11), 1, *UNIT)
    assert ids[:, 0].tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 9, 10, 10]


def test_hypervolume_of_what_each_rule_finds():
    volumes = {"front": hypervolume(BELOW_CHORD, [-0.1, -0.1])}
    for rule in ("ray", "weighted_sum"):
        chosen = select(BELOW_CHORD, preference_grid(11), 1, 11, rule=rule)
        points = BELOW_CHORD[chosen.row_ids[:, 0]]
        volumes[rule] = hypervolume(points, [-0.1, -0.1])
        volumes[f"{rule} from 0"] = hypervolume(points, [0, 0])
    expected = {"front": 0.383870, "ray": 0.376236, "ray from 0": 0.166236,
                "weighted_sum": 0.21, "weighted_sum from 0": 0}  # fmt: skip
    assert volumes == pytest.approx(expected, abs=1e-6)


@settings(max_examples=100)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_order_agrees_with_sorting_the_sums(num_objectives, num_rows, seed, ties):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(num_rows, num_objectives)) * 10.0 ** rng.integers(-3, 3)
    if ties:
        rewards = rng.integers(0, 4, (num_rows, num_objectives)).astype(float)
    preferences = rng.multinomial(8, np.ones(num_objectives) / num_objectives, size=3) / 8
    candidates = rng.random(num_rows) < 0.7
    candidates[0] = True
    rows, k = np.flatnonzero(candidates), int(rng.integers(1, candidates.sum() + 1))
    low, high = rewards.min(axis=0), rewards.max(axis=0)
    ids, gaps = largest_weighted_sum(rewards, preferences, k, low, high, candidates=candidates)
    scaled = (rewards - low) / np.where(high > low, high - low, 1)
    ideal = (high > low).astype(float)
    for preference, its_ids, its_gaps in zip(preferences, ids, gaps, strict=True):
        sums = [round(preference @ (ideal - scaled[row]), 9) for row in rows]
        expected = [row for _, row in sorted(zip(sums, rows, strict=True))][:k]
        assert its_ids.tolist() == expected
        np.testing.assert_allclose(its_gaps, (ideal - scaled[its_ids]) @ preference, atol=1e-12)


def test_without_normalisation_a_wide_objective_decides():
    rewards = SET_A * [1, 100]
    ids, gaps = largest_weighted_sum(rewards, [[0.5, 0.5]], 2, [0, 0], [10, 1000], normalize=False)
    assert ids.tolist() == [[0, 1]] and gaps.tolist() == [[5, 54]]


def test_ends_agree_with_the_rays():
    """There both rules take the rows with most of one objective."""
    corners = PREFERENCES_A[[0, -1]]
    ids, _ = largest_weighted_sum(SET_A, corners, 4, [0, 0], [10, 10])
    np.testing.assert_array_equal(ids, nearest_to_ray(SET_A, corners, 4, [0, 0], [10, 10])[0])


def test_the_rule_of_a_selection():
    chosen = select(SET_A, PREFERENCES_A, 4, 8, rule="weighted_sum")
    assert (chosen.ranks >= 0).sum() == 11
    expected, _ = largest_weighted_sum(
        SET_A, PREFERENCES_A, 4, [0, 0], [10, 10], candidates=chosen.ranks >= 0
    )
    np.testing.assert_array_equal(chosen.row_ids, expected)
    traced = jax.jit(lambda r: select(r, PREFERENCES_A, 4, 8, rule="weighted_sum", validate=False))
    np.testing.assert_array_equal(traced(SET_A).row_ids, expected)
    with pytest.raises(InputError, match="rule 'linear': unknown; choose from ray, weighted_sum, "):
        select(SET_A, PREFERENCES_A, 4, 8, rule="linear")


def test_mistakes_are_named():
    with pytest.raises(InputError, match="k: 9 rows wanted of 3"):
        largest_weighted_sum(np.zeros((3, 2)), [[0.5, 0.5]], 9, *UNIT)
    with pytest.raises(InputError, match="preferences: row 0"):
        largest_weighted_sum(SET_A, [[0.5, 0.9]], 1, *UNIT)
    with pytest.raises(InputError, match="finite difference"):
        largest_weighted_sum(SET_A, [[0.5, 0.5]], 1, [0, np.nan], [1, 1])
