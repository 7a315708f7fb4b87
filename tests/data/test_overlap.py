from __future__ import annotations

import pytest

from paretohqd_jax.data.overlap import echoed_share, jaccard, near_duplicates, plain_words


def test_plain_words_have_no_marks_and_no_capitals():
    assert plain_words('He said: "It\'s 3.5" — state-of-the-art!') == [
        "he", "said", "it's", "3.5", "state-of-the-art",
    ]  # fmt: skip
    assert plain_words("我用 Python。") == ["我", "用", "python"]


@pytest.mark.parametrize(
    ("prompt", "response", "share"),
    [
        ("My soup is too salty. Can I save it?", "Your soup is too salty. Can I save it?", 8 / 9),
        ("Why do cats purr?", "why do CATS purr", 1),
        ("Why do cats purr?", "Cats purr when they are content.", 0),
        ("Why do cats purr?", "Cats purr!", 1),
        ("Why do cats purr?", "Cats do.", 0),
        ("How can I sleep better?", "To sleep better, go to bed early.", 0),
        ("How do I boil an egg?", "To boil an egg, heat some water.", 3 / 7),
        ("Why?", "", 0),
        ("Why?", "...", 0),
        ("", "No prompt", 0),
        ("Photosynthesis?", "Photosynthesis makes sugar of light.", 1 / 5),
        ("我的汤太咸了", "我的汤太咸了", 1),
    ],
)
def test_an_echo_is_the_share_of_a_response_that_repeats_its_prompt(prompt, response, share):
    assert echoed_share(prompt, response) == pytest.approx(share)


def test_jaccard():
    assert jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5
    assert jaccard(set(), set()) == 1


def test_near_duplicates_are_of_the_same_prompt_and_of_rows_that_stay():
    rows = [
        ("p", "a b c d e"),
        ("p", "A, b, c: d e f."),  # 5 of 6 words
        ("q", "a b c d e"),
        ("p", "a b c d f g"),  # 4 of 7 of the first; 5 of 7 of the second, which is gone
        ("p", "a b c d"),
    ]
    assert near_duplicates(*zip(*rows, strict=True), 0.7) == [False, True, False, False, True]
    assert not any(near_duplicates(*zip(*rows, strict=True), 1))
