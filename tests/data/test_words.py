from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretohqd_jax.data.words import first_sentences, split_words, whole_sentences


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我用Python写代码。", "我 用 Python 写 代 码"),
        ("今天 ， 很 好 ！ 👍", "今 天 很 好"),
        ("２０２４年に3.5％", "２０２４ 年 に 3.5"),
        ("ラーメンを食べる", "ラーメン を 食 べ る"),
        ("བོད་སྐད།", "བོད སྐད"),
        ("ภาษาไทย 55 ครับ", "ภาษ าไท ย 55 ครับ"),
        ("ສະບາຍດີ", "ສະບ າຍດີ"),
        ("မြန်မာစာကို", "မြန်မ ာစာ ကို"),
        (
            "The word 你好 is, state-of-the-art, 'hello'",
            "The word 你 好 is, state-of-the-art, 'hello'",
        ),
        ("한국(韓國)은 - 좋다", "한국 韓 國 은 좋다"),
        ("。？！", "。？！"),  # no script: as whitespace separates
        ("_中__", "中"),
        ("", ""),
    ],
)
def test_words(text, words):
    assert split_words(text) == words.split()


@given(st.text(st.characters(max_codepoint=0x0DFF)))
def test_scripts_with_blanks_are_split_as_python_does(text):
    assert split_words(text) == text.split()


@pytest.mark.parametrize(
    "text", ["오늘은 날씨가, 정말 좋다!", "«Да» – нет…", "I’m 👍 – fine", "नमस्ते दुनिया", "שלום עולם"]
)
def test_other_scripts_with_blanks(text):
    assert split_words(text) == text.split()


@given(st.text(), st.sampled_from("中のภខ"))
def test_every_word_is_cut_out_of_the_text_in_order(text, letter):
    text += letter
    start = 0
    for word in split_words(text):
        start = text.index(word, start) + len(word)
    assert start == len(text)


@pytest.mark.parametrize(
    ("text", "one", "two"),
    [
        ("Cats purr. Why? Who knows", "Cats purr.", "Cats purr. Why?"),
        ('He said "No." Then he left.', 'He said "No."', 'He said "No." Then he left.'),
        ("Version 1.5 is out! Yes.", "Version 1.5 is out!", "Version 1.5 is out! Yes."),
        ("1. Boil it.\n2. Eat it.", "1. Boil it.", "1. Boil it.\n2. Eat it."),
        ("很好。我们去", "很好。", "很好。我们去"),
        ("no mark", "no mark", "no mark"),
        ("", "", ""),
    ],
)
def test_first_sentences(text, one, two):
    assert (first_sentences(text, 1), first_sentences(text, 2)) == (one, two)


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("Why? Bec", "Why?"),
        ("no end", ""),
        ("", ""),
        ("A.", "A."),
        ("很好。我们去", "很好。"),
        ("क्या। मैं", "क्या।"),
        ("هل؟ نعم", "هل؟"),
        ("Do this:\n\n1. Boil it.\n\n2.", "Do this:\n\n1. Boil it."),
        ("Boil it. **2.** ", "Boil it."),
        ("Do this:\n\n1. Boil", ""),
    ],
)
def test_a_cut_response_keeps_its_whole_sentences(cut, whole):
    assert whole_sentences(cut) == whole
