"""What is learnt from answers and what is logged of them, by the worked examples of MORLHF."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.steps.answers import collected

RAW = Frame("raw", "the reward models", np.zeros(2), np.ones(2), np.zeros(2))
GROUP = [[1, 0.2], [0, 0.9], [0.5, 0.5], [1, 0.8]]


def test_answers_of_two_models_have_advantages_of_their_own_weights():
    """One prompt of three tokens; the second model is given the same reward for every answer."""
    rewards = np.array([[GROUP], [[[1.2345, -0.4321]] * 4]])
    lengths = [2, 1, 3, 2] * 2
    answers = pa.table({
        "token_ids": [[9] * length for length in lengths], "num_tokens": lengths,
        "truncated": [False, False, True, False] * 2,
    })  # fmt: skip
    found, told = collected(
        answers, [[5, 6, 7]], rewards, RAW, np.array([[0.7, 0.3], [0.3, 0.7]]), "grpo",
        ["kind", "brief"], 3,
    )  # fmt: skip
    expected = [[0.484934, -1.182558, -0.399858, 1.097482], [0, 0, 0, 0]]
    np.testing.assert_allclose(found.advantages, expected, atol=1e-6)
    np.testing.assert_allclose(told["weighted_reward"], [0.6175, 0.06788], atol=1e-9)
    np.testing.assert_allclose(told["reward/kind"], [0.625, 1.2345])
    assert told["equal_groups/brief"].tolist() == [0, 1]
    assert told["truncated"].tolist() == [0.25, 0.25]
    assert found.tokens[0, 1, :4].tolist() == [5, 6, 7, 9] and (found.starts == 3).all()
    assert found.token_mask.sum(axis=-1)[1].tolist() == [5, 4, 6, 5]
    np.testing.assert_array_equal(found.answer_mask[0], np.arange(3) < np.c_[lengths[:4]])
