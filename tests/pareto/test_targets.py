"""Scores to ask for, by the worked example of Rewards-in-Context and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import preference_grid
from paretohqd_jax.pareto.targets import MAPPINGS, Targets, good_on_some

LOW, HIGH = (-2.0, -1.5), (2.5, 1.8)
EXAMPLE = {
    (0.0, 1.0): {"l2": (-2.0, 1.8), "linf": (-2.0, 1.8), "linear": (-2.0, 1.8)},
    (0.1, 0.9): {"l2": (-1.5, 1.8), "linf": (-1.1, 1.8), "linear": (-1.6, 1.5)},
    (0.3, 0.7): {"l2": (-0.2, 1.5), "linf": (0.7, 1.8), "linear": (-0.7, 0.8)},
    (0.5, 0.5): {"l2": (1.2, 0.8), "linf": (2.5, 1.8), "linear": (0.2, 0.1)},
    (0.8, 0.2): {"l2": (2.4, -0.7), "linf": (2.5, -0.2), "linear": (1.6, -0.8)},
    (1.0, 0.0): {"l2": (2.5, -1.5), "linf": (2.5, -1.5), "linear": (2.5, -1.5)},
}


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_worked_example(mapping):
    scores = Targets(mapping, LOW, HIGH).scores(np.array([*EXAMPLE]))
    np.testing.assert_array_equal(scores, [own[mapping] for own in EXAMPLE.values()])


@settings(max_examples=40)
@given(
    st.sampled_from([*MAPPINGS]),
    st.lists(st.floats(0.05, 1), min_size=2, max_size=5),
    st.floats(0, 1),
)
def test_more_weight_never_asks_for_less(mapping, others, share):
    """Of the first objective, whose weight is taken from all others alike."""
    size = len(others) + 1
    targets = Targets(mapping, (-2.0,) * size, (3.0,) * size)

    def scores(weight):
        rest = (1 - weight) * np.array(others) / sum(others)
        return targets.scores(np.r_[weight, rest])[0]

    assert scores(share)[0] <= scores((1 + share) / 2)[0]
    np.testing.assert_array_equal(scores(1.0), [3.0] + [-2.0] * (size - 1))


def test_random_targets_are_near_the_front_of_the_box():
    targets = Targets("l2", (-2.0, -1.0, 0.0), (2.5, 1.0, 9.0))
    scores = targets.near_front(np.random.default_rng(0), 500)
    at_highest = scores == targets.high
    assert (at_highest.sum(axis=1) >= 2).all()
    assert np.bincount(np.argmin(at_highest, axis=1)).min() > 100  # each is the least at times
    assert (scores >= targets.low).all() and (scores <= targets.high).all()
    np.testing.assert_array_equal(scores, scores.round(1))


def test_rows_are_kept_that_reach_the_quantile_of_some_objective():
    scores = [(0, 9), (1, 8), (2, 2), (3, 3), (4, 1), (5, 0), (6, 4), (7, 5), (8, 6), (9, 7)]
    kept = good_on_some(np.array(scores, float), 0.7)
    assert np.flatnonzero(kept).tolist() == [0, 1, 7, 8, 9]
    assert good_on_some(np.array(scores, float), 0.0).all()


@pytest.mark.parametrize(
    ("mapping", "low", "high", "message"),
    [
        ("l1", LOW, HIGH, "mapping is 'l1'; use one of l2, linf, linear"),
        ("l2", LOW, (2.5, -1.5), "the scores to ask for go from"),
        ("l2", LOW, (2.5, float("nan")), "the scores to ask for go from"),
    ],
)
def test_targets_that_are_none(mapping, low, high, message):
    with pytest.raises(InputError, match=message):
        Targets(mapping, low, high)


def test_a_grid_is_mapped_at_once():
    scores = Targets("l2", (0.0,) * 3, (1.0,) * 3).scores(preference_grid("ric-13", 3))
    assert scores.shape == (13, 3) and scores.max() == 1
