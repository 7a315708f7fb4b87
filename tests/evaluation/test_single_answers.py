"""Measures of single answers, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.evaluation.single_answers import achievements, prompt_hypervolumes

UNIT = Frame("unit", "test", np.zeros(2), np.ones(2), np.zeros(2))


def test_achievement_tells_balanced_answers_from_the_toss_of_a_coin():
    preferences = np.array([(0.5, 0.5), (0.5, 0.5), (0.8, 0.2)])
    rewards = np.array([
        [(5.0, 5.0), (5.0, 5.0)],
        [(10.0, 0.0), (0.0, 10.0)],
        [(9.0, 1.0), (10.0, 10.0)],
    ])  # fmt: skip
    achieved = achievements(preferences, rewards, [0, 0], [10, 10])
    # Lacks over gaps: 1 and 1; 0 and 2; .1 / .2 and .9 / .8. A hundredth of their sum is added, and
    # all is in units of the least gap.
    expected = np.array([[-1.02, -1.02], [-2.02, -2.02], [-(1.125 + 0.01 * 1.625), 0]])
    expected *= np.array([[0.5], [0.5], [0.2]])
    np.testing.assert_allclose(achieved, expected)
    runs = achievements(preferences, np.stack([rewards, rewards[:, ::-1]]), [0, 0], [10, 10])
    np.testing.assert_allclose(runs, [expected, expected[:, ::-1]])


def test_models_at_the_corners_do_not_outweigh_the_others():
    corners = np.array([(1.0, 0.0), (0.0, 1.0)])
    achieved = achievements(corners, np.full((2, 1, 2), 5.0), [0, 0], [10, 10])
    np.testing.assert_allclose(achieved, -0.5 - 0.01 * 0.5, atol=1e-5)


def test_hypervolume_of_the_answers_to_each_prompt():
    rewards = np.array([[(1.0, 2.0), (1.0, 1.0)], [(2.0, 1.0), (2.0, 2.0)]])  # two models
    volumes = prompt_hypervolumes(UNIT, rewards)
    assert volumes == pytest.approx([2 + 2 - 1, 4])
    mean = rewards.mean(axis=1)  # (1, 1.5) and (2, 1.5): what means alone would say
    assert UNIT.hypervolume(mean) == 3 < volumes.mean() == 3.5
    runs = prompt_hypervolumes(UNIT, np.stack([rewards, rewards + 1]))
    assert runs == pytest.approx(np.array([[3, 4], [8, 9]]))
