"""What counts as a word in any script: lengths, collapse and diversity are measured in words."""

from __future__ import annotations

import regex

VERSION = "words_v1"
DEFINITION = (
    "what whitespace separates; in scripts without blanks between words (Han, Hiragana, Katakana, "
    "Tibetan), the words of Unicode's UAX #29 that hold a letter or a digit; in those that UAX #29 "
    "leaves to dictionaries (Line_Break=SA: Thai, Lao, Khmer, Burmese, ...), every three letters "
    "(grapheme clusters) from where a run of them begins"
)
# A fixed number needs no dictionary and depends on the run alone, so that a repeated phrase gives
# repeated words. Words of these scripts have two to four letters; single letters would make
# sequences of four so frequent that every long text were a loop.
LETTERS_PER_WORD = 3

_UNIFIED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Tibetan}"
_COMPLEX = r"\p{Line_Break=SA}"
_WITHOUT_BLANKS = regex.compile(f"[{_UNIFIED}{_COMPLEX}]")
_WORD = regex.compile(
    rf"(?<!\S)(?=\S*[^\W_])[^\s{_UNIFIED}{_COMPLEX}]++(?!\S)"  # between blanks and of other scripts
    rf"|(?:(?=[{_COMPLEX}])\X){{1,{LETTERS_PER_WORD}}}"
    r"|[^\W_].*?\b",
    regex.WORD | regex.DOTALL,  # \b by the rules of UAX #29
)


def split_words(text: str) -> list[str]:
    """The words of `text`, see `DEFINITION`.

    A text whose scripts have blanks gives `text.split()`, punctuation and emoji included. In a text
    with letters of a script without blanks, what has no letter or digit is no word, and what other
    scripts write between blanks stays whole.
    """
    if text.isascii() or not _WITHOUT_BLANKS.search(text):
        return text.split()
    return _WORD.findall(text)
