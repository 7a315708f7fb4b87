"""From a prompt and a response to the tokens a reward model reads."""

from __future__ import annotations

import logging

import pytest

from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.rewards.reward_model import dialogue, encode_pairs


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("random:toy")  # a token per byte


def texts_of(tokenizer, texts, cut, max_tokens, prompts, responses):
    tokens, num_cut = encode_pairs(tokenizer, texts, cut, max_tokens, prompts, responses)
    return [tokenizer.decode(ids) for ids in tokens], num_cut


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("{prompt}", "{response}"), "whyso"),
        (("{response}", "{prompt}"), "sowhy"),
        (("{response}",), "so"),
        (("{response} <eos> {prompt}",), "so <eos> why"),
        (("{dialogue}\n\nAssistant:", "{response}"), "\n\nHuman: why\n\nAssistant:so"),
    ],
)
def test_formats(tokenizer, texts, expected):
    assert texts_of(tokenizer, texts, "right", 99, ["why"], ["so"]) == ([expected], 0)


def test_braces_in_the_users_texts_stand_for_themselves(tokenizer):
    decoded, _ = texts_of(
        tokenizer, ("{prompt}|{response}",), "right", 99, ["{response}{0}"], ["{prompt}"]
    )
    assert decoded == ["{response}{0}|{prompt}"]


@pytest.mark.parametrize(
    ("texts", "cut", "expected"),
    [
        (("{prompt}{response}",), "right", "abcdef"),
        (("{prompt}{response}",), "left", "efghij"),
        (("{prompt}", "{response}"), "right", "abchij"),  # the longer of the two is shortened
        (("{prompt}", "{response}"), "left", "efghij"),
    ],
)
def test_long_texts_are_cut_from_the_side_asked_for_and_counted(tokenizer, texts, cut, expected):
    prompts, responses = ["abcdefg", "", "abc"], ["hij", "xyz", "def"]
    decoded, num_cut = texts_of(tokenizer, texts, cut, 6, prompts, responses)
    assert decoded == [expected, "xyz", "abcdef"]
    assert num_cut == 1


def test_no_warning_of_lengths_that_are_cut_anyway(caplog):
    tokenizer = load_tokenizer("random:toy")
    tokenizer.model_max_length = 4
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        assert encode_pairs(tokenizer, ("{prompt}",), "right", 4, ["abcdef"], [""]).num_cut == 1
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_no_rows(tokenizer):
    assert encode_pairs(tokenizer, ("{prompt}",), "right", 9, [], []) == ([], 0)


@pytest.mark.parametrize(
    "prompt",
    ["\n\nHuman: hi", "Human: hi", "\n\nHuman: hi\n\nAssistant:", "\n\nHuman: hi \n\nAssistant: "],
)
def test_dialogues_are_taken_as_they_are(prompt):
    assert dialogue(prompt) == "\n\nHuman: hi"


def test_prompts_become_dialogues():
    assert dialogue("hi") == "\n\nHuman: hi"
    two_turns = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he"
    assert dialogue(two_turns) == two_turns
