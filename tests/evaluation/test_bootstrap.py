from __future__ import annotations

import numpy as np

from paretohqd_jax.evaluation.bootstrap import NUM_RESAMPLES, interval, resample
from paretohqd_jax.evaluation.diversity import distinct_share


def test_draws_are_shares_of_prompts_and_the_same_prompts_for_every_number_of_seeds():
    one, three = resample(7), resample(7, num_seeds=3)
    assert one.prompts.shape == (NUM_RESAMPLES, 7) and three.seeds.shape == (NUM_RESAMPLES, 3)
    np.testing.assert_allclose(one.prompts.sum(axis=1), 1)
    np.testing.assert_array_equal(one.prompts, three.prompts)
    assert not one.seeds.any() and set(three.seeds.ravel()) == {0, 1, 2}
    assert abs(one.prompts.mean(axis=0) - 1 / 7).max() < 0.01


def test_means_of_a_draw_written_out():
    values = np.random.default_rng(0).normal(size=(2, 4, 5, 3))  # seeds, models, prompts, values
    draws = resample(5, num_seeds=2)
    means = draws.means(values)
    assert means.shape == (NUM_RESAMPLES, 2, 4, 3)
    for number in (0, 17):
        for place, seed in enumerate(draws.seeds[number]):
            expected = np.einsum("p,mpv->mv", draws.prompts[number], values[seed])
            np.testing.assert_allclose(means[number, place], expected)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """100 experiments of 50 prompts; 95 % intervals of the mean hold 0 in about 95 of them."""
    values = np.random.default_rng(0).normal(size=(100, 50, 1))
    low, high = np.array(interval(resample(50).means(values[None])[:, 0]))
    assert 89 <= np.sum((low < 0) & (high > 0)) <= 99
    # As wide as two standard errors to either side.
    np.testing.assert_allclose((high - low).mean(), 2 * 1.96 / np.sqrt(50), rtol=0.1)


def test_seeds_that_differ_widen_the_interval():
    values = np.random.default_rng(0).normal(0, 0.01, size=(3, 200, 1))
    values += np.array([-1, 0, 1])[:, None, None]
    low, high = interval(resample(200, num_seeds=3).means(values).mean(axis=1)[:, 0])
    assert low < -0.6 and high > 0.6


def test_distinct_share():
    responses = ["a b a b", "a", ""]
    assert distinct_share(responses, 1) == 2 / 5
    assert distinct_share(responses, 2) == 2 / 3  # ab, ba, ab
    assert distinct_share(responses, 5) == 0
    assert distinct_share(["我去公园。", "我去 学校"], 2) == 5 / 6  # 我去 去公 公园, 我去 去学 学校
