"""What counts as a word, and as a sentence, in any script.

Lengths, collapse and diversity are measured in words.
"""

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
_CLOSING = r"[\p{Pe}\p{Pf}\"'*]*"
# A sentence ends at its mark, before a blank or in a script without blanks, or with its line. A
# full stop after a digit is rather that of a list.
_SENTENCE = regex.compile(
    rf"\S.*?(?:(?<!\d)\p{{STerm}}+{_CLOSING}(?=[\s\p{{Han}}\p{{Hiragana}}\p{{Katakana}}]|$)|$)",
    regex.MULTILINE,
)
_ENDED = regex.compile(rf"\p{{STerm}}{_CLOSING}$")
_MARK = regex.compile(r"\p{Sentence_Terminal}")
_LIST_NUMBER = regex.compile(r"(?:^|\s)\W*\d{1,2}\.$")


def split_words(text: str) -> list[str]:
    """The words of `text`, see `DEFINITION`.

    A text whose scripts have blanks gives `text.split()`, punctuation and emoji included. In a text
    with letters of a script without blanks, what has no letter or digit is no word, and what other
    scripts write between blanks stays whole.
    """
    if text.isascii() or not _WITHOUT_BLANKS.search(text):
        return text.split()
    return _WORD.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, without the blanks between them; a line ends one as well."""
    return [match[0].rstrip() for match in _SENTENCE.finditer(text)]


def ends_sentence(text: str) -> bool:
    """Whether `text` ends with the mark of a sentence."""
    return _ENDED.search(text) is not None


def first_sentences(text: str, count: int) -> str:
    """`text` up to the end of its sentence number `count`, or of its last one."""
    end = 0
    for sentence in split_sentences(text)[:count]:
        end = text.index(sentence, end) + len(sentence)
    return text[:end]


def whole_sentences(text: str) -> str:
    """`text` up to its last mark that ends a sentence, not the number of a list, or ""."""
    ends = (mark.end() for mark in _MARK.finditer(text))
    return text[: max((end for end in ends if not _LIST_NUMBER.search(text[:end])), default=0)]
