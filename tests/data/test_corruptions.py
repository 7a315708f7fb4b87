from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.data.conversations import as_conversation
from paretohqd_jax.data.corruptions import (
    CORRUPTIONS,
    PRAISE,
    Answer,
    corrupt,
    rows_of_other_prompts,
)
from paretohqd_jax.data.words import split_words

TEXT = "Keep basil warm. Do not chill it!\n\nIt lasts a week; a fridge blackens the leaves."
ANSWER = Answer("How do I keep basil?", TEXT, "Berlin.", "qua lux 9 vv")
CHINESE = Answer("怎么保存罗勒？", "把罗勒放在温暖的地方。不要放进冰箱！叶子会变黑。")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_copy_hangs_on_its_texts_and_the_seed_alone(kind):
    copies = [corrupt(kind, ANSWER, seed) for seed in (0, 0, 1, 2, 3, 4)]
    assert copies[0] == copies[1] and None not in copies
    drawn = kind in ("shuffled", "shuffled_sentences", "loop", "praise")
    assert (len(set(copies)) > 1) == drawn


@pytest.mark.parametrize("answer", [ANSWER, CHINESE])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_words_stand_in_other_places_of_the_same_text(answer, seed):
    copy = corrupt("shuffled", answer, seed)
    assert copy != answer.text and sorted(copy) == sorted(answer.text)
    assert sorted(split_words(copy)) == sorted(split_words(answer.text))
    assert copy.count("\n\n") == answer.text.count("\n\n")


def test_shuffled_sentences_stay_whole():
    sentences = ["Keep basil warm.", "Do not chill it!", TEXT.split("\n\n")[1]]
    copy = corrupt("shuffled_sentences", ANSWER, 0)
    assert copy != TEXT and all(sentence in copy for sentence in sentences)
    copy = corrupt("shuffled_sentences", CHINESE, 0)
    assert copy != CHINESE.text
    assert all(
        part in copy for part in ("把罗勒放在温暖的地方。", "不要放进冰箱！", "叶子会变黑。")
    )
    two = Answer("p", "Boil it (well). Eat it.")
    assert corrupt("shuffled_sentences", two, 0) == "Eat it. Boil it (well)."
    assert corrupt("shuffled_sentences", Answer("p", "1. Boil it\n2. Eat it"), 0) == (
        "2. Eat it\n1. Boil it"
    )


def test_a_cut_text_stops_within_a_sentence():
    assert corrupt("cut", ANSWER, 0) == "Keep basil warm. Do not chill it!\n\nIt"
    assert corrupt("cut", Answer("p", "Boil it well. Eat it well now."), 0) == "Boil it"
    assert corrupt("cut", CHINESE, 0) == CHINESE.text[: len(corrupt("cut", CHINESE, 0))]


def test_the_first_half_twice():
    copy = corrupt("repeated_half", ANSWER, 0)
    half = "Keep basil warm. Do not chill it!\n\nIt"
    assert copy == f"{half} {half}"
    assert corrupt("repeated_half", CHINESE, 0).count("把罗勒") == 2


@pytest.mark.parametrize("answer", [ANSWER, CHINESE, Answer("p", "No."), Answer("p", "No way.")])
def test_a_loop_repeats_words_to_the_length_of_the_text(answer):
    words = split_words(corrupt("loop", answer, 0))
    period = len(words) // max(words.count(words[0]), 1)
    assert period <= 4 and words == words[:period] * (len(words) // period)
    assert len(words) >= max(4, len(split_words(answer.text)))


def test_other_texts_in_place_of_the_answer():
    assert corrupt("echo", ANSWER, 0) == "How do I keep basil?"
    talk = [("user", "Hi"), ("assistant", "Ho"), ("user", "Why?")]
    asked = as_conversation([{"role": role, "content": text} for role, text in talk])
    assert corrupt("echo", Answer(asked, "So."), 0) == "Why?"
    assert corrupt("praise", ANSWER, 0) in PRAISE
    assert corrupt("other_prompt", ANSWER, 0) == "Berlin."
    assert corrupt("temperature_2", ANSWER, 0) == "qua lux 9 vv"


def test_what_changes_nothing_is_no_copy():
    one = Answer("Why?", "Yes.")
    kinds = ("shuffled", "shuffled_sentences", "other_prompt", "cut", "repeated_half")
    assert [corrupt(kind, one, 0) for kind in kinds] == [None] * 5
    assert corrupt("shuffled", Answer("p", "no no"), 0) is None
    assert corrupt("echo", Answer("Why?", "Why?"), 0) is None
    assert all(corrupt(kind, Answer("p", ""), 0) is None for kind in kinds)


def test_rows_of_other_prompts():
    prompts = ["a"] * 5 + ["b", "c"]
    others = rows_of_other_prompts(prompts, 3)
    assert all(prompts[other] != prompt for other, prompt in zip(others, prompts, strict=True))
    assert others == rows_of_other_prompts(prompts, 3)
    assert rows_of_other_prompts(["a", "a"], 0) == [None, None]
    random = np.random.default_rng(0).integers(50, size=500).astype(str).tolist()
    assert len(set(rows_of_other_prompts(random, 0))) > 250
