"""Scores in prompts, in both formats of Rewards-in-Context, and rows that are learnt so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.data.conversations import as_prompt, in_words, messages_of
from paretohqd_jax.data.scores_in_prompt import scores_in, words_with
from paretohqd_jax.data.scores_in_rows import (
    standardised,
    statistics_of,
    with_scores_in_prompts,
)
from paretohqd_jax.errors import InputError

SUMMARY = "### Instruction: Generate a one-sentence summary of this post. ### Input: {prompt}"


def test_scores_are_written_in_one_decimal_and_halves_go_to_even():
    words = words_with([1.25, -0.04, -3.36])
    assert words == "{prompt} <rm1_score> 1.2 <rm2_score> 0.0 <rm3_score> -3.4"


@settings(max_examples=30)
@given(st.text(max_size=20), st.lists(st.integers(-99, 99), min_size=1, max_size=12))
def test_what_is_written_is_read(prompt, tenths):
    scores = [tenth / 10 for tenth in tenths]
    assert scores_in(in_words(words_with(scores), prompt)) == scores


def test_a_prompt_without_scores_has_none():
    assert scores_in("How warm is it, <rm2_score> 1.0?") == []


@pytest.mark.parametrize("last", ["that he sat", "Assistants: is a nest", "{prompt} {0} 100%", "n"])
def test_the_mark_of_the_answer_stays_at_the_end_and_no_letter_goes(last):
    """RiC's code strips the letters of the mark, which eats those of the prompt."""
    words = words_with([1.2, -0.3])
    asked = f"{last} <rm1_score> 1.2 <rm2_score> -0.3"
    assert in_words(words, last) == asked
    dialogue = f"\n\nHuman: hi\n\nAssistant: hello\n\nHuman: {last}"
    for blank in ("", " "):
        marked = in_words(words, f"{dialogue}{blank}\n\nAssistant:")
        assert marked == f"\n\nHuman: hi\n\nAssistant: hello\n\nHuman: {asked} \n\nAssistant:"
    post = in_words(words, SUMMARY.replace("{prompt}", last) + " ### Response: ")
    assert post == SUMMARY.replace("{prompt}", asked) + " ### Response:"


def test_of_a_conversation_the_last_message_has_the_scores():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
             {"role": "user", "content": "Why?"}]  # fmt: skip
    asked = in_words(words_with([0.5, 2]), as_prompt(turns))
    assert [turn["content"] for turn in messages_of(asked)] == [
        "Hi", "Hello", "Why? <rm1_score> 0.5 <rm2_score> 2.0"
    ]  # fmt: skip
    assert scores_in(asked) == [0.5, 2.0]


def test_rows_have_their_standardised_rewards_in_their_prompts():
    """The published statistics, and the worked example."""
    stored = {"harmless": {"mean": -0.94732502, "std": 1.92034349},
              "helpful": {"mean": -0.01500361, "std": 1.40736504}}  # fmt: skip
    rows = pa.table(
        {"prompt": ["why {this}?"], "response": ["so"], "harmless": [0.5], "helpful": [1.0]},
        metadata={"rewards": json.dumps(stored)},
    )
    given = (rows, [*stored], Path("rows"))
    statistics = statistics_of(*given)
    scores = standardised(*given, statistics)
    np.testing.assert_allclose(scores, [[0.753680, 0.721208]], atol=1e-6)
    [row] = with_scores_in_prompts(rows, scores, [*stored]).to_pylist()
    assert row["prompt"] == "why {this}? <rm1_score> 0.8 <rm2_score> 0.7"
    assert row["question"] == "why {this}?" and not row["truncated"]
    [row] = with_scores_in_prompts(rows, scores, [*stored], without_end=True).to_pylist()
    assert row["truncated"]


def test_rewards_may_be_rounded_first():
    rows = pa.table({"kind": [0.14, 0.26, 0.41], "short": [1.0, 2.0, 3.0]})
    given = (rows, ["kind", "short"], Path("rows"))
    statistics = statistics_of(*given)
    np.testing.assert_allclose(standardised(*given, statistics).std(axis=0), 1)
    rounded = standardised(*given, statistics, rounded=True)
    np.testing.assert_allclose(rounded[:, 0] * statistics[0, 1] + statistics[0, 0], [0.1, 0.3, 0.4])
    same = pa.table({"kind": [1.0, 1.0]})
    with pytest.raises(InputError, match="'kind' is 1.0 in every row"):
        statistics_of(same, ["kind"], Path("rows"))
