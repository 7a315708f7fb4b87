from __future__ import annotations

import sys

import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.rewards import functions


def test_brief_is_minus_log_of_one_plus_words():
    responses = ["", "one", "two words", " spread\n over\tlines  "]
    expected = -np.log([1, 2, 3, 4])
    rewards = functions.brief(["p"] * 4, responses)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, expected, rtol=1e-6)


def test_brief_counts_words_in_scripts_without_blanks():
    rewards = functions.brief(["p"] * 3, ["今天很好。", "今天很好，我们去公园散步吧。", "今天"])
    np.testing.assert_allclose(rewards, -np.log([5, 13, 3]), rtol=1e-6)


def test_positivity_is_the_vader_compound_of_the_response_alone():
    # Values of vaderSentiment 3.3.2, printed by its own analyzer.
    responses = [
        "What a wonderful idea!",
        "What a WONDERFUL idea!",
        "I am sad and lonely.",
        "The moon is made of rock.",
        "",
    ]
    rewards = functions.positivity(["I love you, wonderful!"] * 5, responses)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, [0.6114, 0.6932, -0.6808, 0.0, 0.0], atol=1e-7)


def test_missing_vader_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    functions._vader.cache_clear()
    with pytest.raises(InputError, match="pip install vaderSentiment"):
        functions.positivity(["p"], ["r"])
