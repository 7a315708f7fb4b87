"""Shapes, order and meshes of the scoring engine."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.rewards.engine import compute_rewards, padded_length
from paretohqd_jax.rewards.reward_model import RewardModel
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

TEXTS = [[number + 1] * length for number, length in enumerate((3, 20, 1, 9, 9, 40, 2))]


class Recorder:
    """The sum of the real tokens as a reward; keeps the shapes it is given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, params, tokens, mask):
        self.shapes.append(tokens.shape)
        return (tokens * mask).sum(axis=1).astype(np.float32)


def test_every_text_gets_its_own_reward_in_few_shapes():
    apply = Recorder()
    rewards = compute_rewards(RewardModel(None, apply, None, 8, traced=False), TEXTS, batch_size=3)
    np.testing.assert_array_equal(rewards, [sum(text) for text in TEXTS])
    assert apply.shapes == [(3, 8), (3, 24), (1, 40)]


def test_shapes_are_bounded():
    lengths = {padded_length(length) for length in range(1, 1025)}
    assert len(lengths) == 40 and max(lengths) == 1024
    assert all(length <= padded_length(length) < 1.125 * length + 8 for length in range(1, 1025))


def test_compiled_once_per_shape():
    apply = Recorder()
    for _ in range(2):
        compute_rewards(RewardModel(None, apply, None, 8), TEXTS, batch_size=3)
    assert sorted(apply.shapes) == [(1, 40), (3, 8), (3, 24)]


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 2, 2)])
def test_rewards_do_not_depend_on_the_mesh(gpt2, axes):
    prompts, responses = ["a", "bb", "why", "so"], ["x", "it is", "no", "and so on"]
    models = [f"helpful@{gpt2}", "brief"]
    expected = score(prompts, responses, models, batch_size=3)
    with sharded(make_mesh(*axes), DECODING_RULES):
        rewards = score(prompts, responses, models, batch_size=3)
    np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-4)
