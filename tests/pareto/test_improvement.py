"""Answers better than both of a pair, by the worked example of SIPO and by what must hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paretohqd_jax.pareto.improvement import best_improvement, improves, is_worth_it, losers

ORIGINALS = np.array([[1.0, -0.2, 0.3], [-0.5, 0.8, 0.4]])
CANDIDATES = np.array([[1.2, 0.9, 0.5], [1.5, 0.7, 0.9], [1.1, 1.0, 0.41], [1.0, 0.9, 0.5]])


def test_the_worked_example():
    improved = improves(CANDIDATES, ORIGINALS)
    np.testing.assert_array_equal(improved.all(axis=1), [True, False, True, False])
    assert best_improvement(CANDIDATES, improved) == 0
    np.testing.assert_allclose(CANDIDATES[[0, 2]].sum(axis=1), [2.6, 2.51])
    assert best_improvement(CANDIDATES, improves(CANDIDATES, ORIGINALS, margin=0.1)) is None
    assert improves(CANDIDATES, ORIGINALS, margin=0.09).all(axis=1).tolist() == [
        True, False, False, False
    ]  # fmt: skip


@given(arrays(np.int8, (8, 3), elements=st.integers(0, 3)), arrays(np.int8, (2, 3)))
def test_what_survives_dominates_both_originals_strictly_and_more_rewards_keep_fewer(
    candidates, originals
):
    improved = improves(candidates, originals)
    for candidate in candidates[improved.all(axis=1)]:
        assert (candidate > originals).all()
    fewer = improves(candidates[:, :2], originals[:, :2])
    assert not (improved.all(axis=1) & ~fewer.all(axis=1)).any()
    best = best_improvement(candidates, improved)
    assert (best is None) == (not improved.all(axis=1).any())
    if best is not None:
        survivors = candidates[improved.all(axis=1)]
        assert candidates[best].sum() == survivors.sum(axis=1).max()


def test_a_rewrite_stands_for_its_draft_unless_no_reward_is_larger():
    draft = np.array([1.0, 2.0])
    assert is_worth_it(np.array([0.0, 2.1]), draft)
    assert not is_worth_it(np.array([1.0, 1.9]), draft)
    assert not is_worth_it(draft, draft)


def test_each_objective_has_its_weaker_original_or_both():
    labels = np.array([[1, -1, 0], [0, 0, 1]])
    rewards = np.zeros((2, 2, 3))
    rewards[:, 0, :] = [[0, 9, -1], [5, -5, 0]]  # of the chosen ones
    weaker = losers(labels, rewards, "weaker")
    np.testing.assert_array_equal(weaker[:, 0], [[False, True, True], [False, True, False]])
    np.testing.assert_array_equal(weaker[:, 1], ~weaker[:, 0])
    assert losers(labels, rewards, "both").all()
