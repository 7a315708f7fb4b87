"""What is measured of selections, against the worked examples of the specification."""

from __future__ import annotations

import numpy as np
import pytest

from configs.studies import populations
from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.evaluation.single_answers import achievements
from paretohqd_jax.pareto import preference_grid, select
from paretohqd_jax.studies.measures import (
    measure_selection,
    neighbours,
    summarise_draws,
)

GRID = preference_grid(11)
BOX = np.zeros(2), np.ones(2)


def in_units(reference):
    return Frame("none", "", np.zeros(2), np.ones(2), np.full(2, reference))


@pytest.fixture(scope="module")
def gaussians():
    random = np.random.default_rng(0)  # the study's simulation drew one after the other
    return populations.independent(random), populations.opposed(random)


@pytest.mark.parametrize(
    ("population", "size", "layers", "rows", "overlap", "balanced"),
    [
        (0, 100, 5, 138, 95.9, (2.45, 2.69)),
        (0, 1100, 19, 819, 26.0, (2.36, 2.12)),
        (0, 30000, 150, 874, 21.7, (1.45, 1.27)),
        (1, 500, 9, 571, 52.6, (1.66, 1.76)),
        (1, 5000, 35, 923, 17.7, (1.31, 1.41)),
    ],
)
def test_pool_sizes_of_the_specification(
    gaussians, population, size, layers, rows, overlap, balanced
):
    rewards = gaussians[population]
    selection = select(rewards, GRID, 100, size)
    measured = measure_selection(rewards, np.arange(len(rewards)), GRID, selection, in_units(-3.0))
    assert (measured["num_layers"], measured["unique_rows"]) == (layers, rows)
    assert measured["unique_prompts"] == rows
    assert measured["overlap"] == pytest.approx(overlap, abs=0.051)
    assert measured["mean_rewards"][5] == pytest.approx(balanced, abs=0.0051)
    assert measured["pool_size"] >= size


def test_hypervolume_of_both_rules_on_the_hollow_front():
    first = np.arange(11) / 10
    rewards = np.stack([first, 1 - np.sqrt(1 - (1 - first) ** 2)], axis=1)
    measured = {
        rule: measure_selection(
            rewards, np.zeros(11, int), GRID, select(rewards, GRID, 1, 11, rule=rule),
            in_units(-0.1),
        )
        for rule in ("ray", "weighted_sum")
    }  # fmt: skip
    assert measured["ray"]["hypervolume"] == pytest.approx(0.376236, abs=1e-6)
    assert measured["weighted_sum"]["hypervolume"] == pytest.approx(0.21)
    for one in measured.values():  # of one row each, means are the rows
        assert one["row_hypervolume"] == pytest.approx(one["hypervolume"])
        assert one["unique_prompts"] == 1
    assert measured["weighted_sum"]["unique_rows"] == 2
    assert measured["ray"]["steerability"][0] > 0.99


def test_what_single_rows_fall_short_of():
    preferences = np.array([[0.8, 0.2], [1.0, 0.0]])  # gaps (0.2, 0.8) and (0.001, 1)
    selected = np.array([[[0.9, 0.4], [0.6, 1.0]], [[0.7, 0.0], [1.0, 1.0]]])
    expected = [[0.15, 0.4], [0.3, 0.0]]  # the first: 0.2 * max(0.1 / 0.2, 0.6 / 0.8)
    np.testing.assert_allclose(
        -achievements(preferences, selected, *BOX, augmentation=0.0), expected
    )


@pytest.mark.parametrize("num_objectives", [3, 5, 8])
def test_no_rule_falls_less_short_than_the_chebyshev_distance(num_objectives):
    random = np.random.default_rng(0)
    rewards = getattr(populations, f"hollow_{num_objectives}")(random)[:2000]
    assert rewards.shape == (2000, num_objectives) and (0 <= rewards).all() and (rewards < 1).all()
    grid = preference_grid({3: 15, 5: 15, 8: 36}[num_objectives], num_objectives)
    box = rewards.min(axis=0), rewards.max(axis=0)
    short = {
        rule: -achievements(
            grid, rewards[select(rewards, grid, 9, 2000, rule=rule).row_ids], *box, augmentation=0.0
        )
        for rule in ("ray", "weighted_sum", "chebyshev")
    }
    least = min(short.values(), key=np.mean)
    assert least is short["chebyshev"]


def test_neighbours():
    assert neighbours(GRID).tolist() == [[i, i + 1] for i in range(10)]
    corners = np.eye(3)
    assert neighbours(corners).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_gains_are_over_the_first_setting_on_the_same_draw():
    def measured(volume):
        return {"hypervolume": volume, "row_hypervolume": 2 * volume, "mean_rewards": [[volume, 0]]}

    draws = [{"b": measured(x), "a": measured(x + 1)} for x in (1.0, 5.0, 9.0)]
    summary = summarise_draws(draws)
    assert list(summary) == ["b", "a"]
    assert summary["a"]["gain"] == {"mean": 1, "interval": [1, 1]}
    assert summary["a"]["row_gain"] == {"mean": 2, "interval": [2, 2]}
    assert summary["b"]["hypervolume"]["mean"] == 5
    low, high = summary["b"]["hypervolume"]["interval"]
    assert 1 < low < 2 and 8 < high < 9
    assert summary["a"]["mean_rewards"]["mean"] == [[6, 0]]
