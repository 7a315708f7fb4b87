from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretohqd_jax.evaluation.collapse import (
    collapse_causes,
    collapse_rates,
    longest_word_run,
    repeated_four_gram_share,
)

NORMAL = (
    "Take the bus to the old harbour in the morning and walk back along the river "
    "before it gets dark"
)
RICE = "wash the rice then boil the rice then drain the rice then eat the rice with salt"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (NORMAL, 0.0),
        ("I am sorry . " * 5, 0.7647),
        ("good " * 12, 0.8889),
        (RICE, 0.0),
        ("a b c", 0.0),
        ("a b c d", 0.0),
        ("", 0.0),
    ],
)
def test_repeated_four_gram_share(text, share):
    assert repeated_four_gram_share(text.split()) == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "short"),
        ("No.", "short"),
        ("  Oh   no.\n", "short"),
        ("Oh no no.", ""),
        (NORMAL, ""),
        (RICE, ""),
        ("I am sorry . " * 5, "loop"),
        ("good " * 8, "loop"),  # its five 4-grams are one
        ("ha " * 7, ""),  # seven words are too few for the share, and too few in a row
        (f"{NORMAL} {NORMAL}", ""),  # 17 of 37 repeated
        (f"{NORMAL} {NORMAL} {NORMAL}", "loop"),
        (f"{NORMAL} {'so ' * 7}{NORMAL[:40]}", ""),
        (f"{NORMAL} {'so ' * 8}", "loop"),
    ],
)
def test_causes(text, cause):
    assert collapse_causes([text]) == [cause]


CHINESE = "今天天气很好，我们去公园散步吧。孩子们在草地上玩耍，老人们在树下下棋。"
JAPANESE = "今日は天気がいいので、コーヒーを飲みながら公園を散歩しましょう。"
THAI = "วันนี้อากาศดีมาก เราไปเดินเล่นที่สวนสาธารณะกันเถอะ"
KOREAN = "오늘은 날씨가 좋으니 공원에 산책하러 갑시다."


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, KOREAN])
def test_causes_in_any_script(text):
    assert collapse_causes([text, text * 4, text], [False, False, True]) == ["", "loop", "loop"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("好的。", "short"),
        ("ครับ", "short"),
        ("はい。", "short"),
        ("네.", "short"),
        ("哈" * 7, ""),
        ("哈" * 8, "loop"),
        ("มาก" * 8, "loop"),
        ("我不知道，" * 5, "loop"),
    ],
)
def test_short_and_looping_answers_without_blanks(text, cause):
    assert collapse_causes([text]) == [cause]


def test_half_of_the_four_grams_repeated_is_not_yet_a_loop():
    words = "a b c d a b c d e"  # 4-grams: abcd bcda cdab dabc abcd bcde
    assert repeated_four_gram_share(words.split()) == pytest.approx(1 / 6)
    exactly_half = "a b c d a b c d a b c"  # eight 4-grams, four of them distinct
    assert repeated_four_gram_share(exactly_half.split()) == 0.5
    assert collapse_causes([exactly_half]) == [""]
    assert collapse_causes([exactly_half + " d"]) == ["loop"]


def test_a_periodic_tail_is_a_loop_unless_short():
    responses = [NORMAL, NORMAL, "aaaaaaaaaaaa"]
    assert collapse_causes(responses, [True, False, True]) == ["loop", "", "short"]


def test_longest_word_run():
    assert longest_word_run([]) == 0
    assert longest_word_run("a b b b a a".split()) == 3


def test_rates_by_cause():
    rates = collapse_rates(["", "short", "loop", "loop", ""])
    assert rates == {"short": 0.2, "loop": 0.4, "total": 0.6}


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=8, max_size=40))
def test_repeating_a_text_four_times_more_is_always_a_loop(words):
    assert collapse_causes([" ".join(words * 5)]) == ["loop"]
