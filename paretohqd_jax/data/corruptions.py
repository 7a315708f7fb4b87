"""Corrupted copies of an answer, none of which a reward should prefer to the answer itself.

A copy depends on the texts that it is made from and a seed alone, not on where its row stands.
Words are those of `data.words`, in any script; what stands between them, such as blanks and line
breaks, stays in place.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from paretohqd_jax.data.conversations import messages_of
from paretohqd_jax.data.words import ends_sentence, split_sentences, split_words

PRAISE = (
    "What a great question!",
    "Great question! I am so glad that you asked.",
    "That is a wonderful question, and you are very thoughtful to ask it!",
    "Excellent question! You are clearly a curious and intelligent person.",
)
LONGEST_PERIOD = 4  # words of a loop
FEWEST_PERIODS = 4


class Answer(NamedTuple):
    """What copies are made from.

    prompt, as in `data.conversations`; text, the answer; other, an answer to another prompt; noise,
    what a language model wrote to the same prompt at temperature 2. The last two are "" where there
    is none.
    """

    prompt: str
    text: str
    other: str = ""
    noise: str = ""


class Corruption(NamedTuple):
    """In words what is preferred to the answer by a model that is fooled, and how it is made."""

    words: str
    copy: Callable[[Answer, np.random.Generator], str]


def shuffle_words(text: str, random: np.random.Generator) -> str:
    """The same words in another order."""
    return _shuffled(text, split_words(text), random)


def shuffle_sentences(text: str, random: np.random.Generator) -> str:
    """The same sentences in another order."""
    return _shuffled(text, split_sentences(text), random)


def _shuffled(text: str, parts: Sequence[str], random: np.random.Generator) -> str:
    order = random.permutation(len(parts))
    if (order == np.arange(len(parts))).all():
        order = np.roll(order, 1)
    gaps = _gaps(text, parts)
    moved = (gap + parts[part] for gap, part in zip(gaps, order, strict=False))
    return "".join(moved) + gaps[-1]


def _gaps(text: str, parts: Sequence[str]) -> list[str]:
    """What stands before, between and after `parts`, which `text` holds in this order."""
    gaps, end = [], 0
    for part in parts:
        start = text.index(part, end)
        gaps.append(text[end:start])
        end = start + len(part)
    return [*gaps, text[end:]]


def cut(text: str) -> str:
    """The first half of the words, or a little less, so that it stops within a sentence."""
    words = split_words(text)
    gaps = _gaps(text, words)
    kept = len(words) // 2
    while kept > 1 and ends_sentence(words[kept - 1] + gaps[kept].rstrip()):
        kept -= 1
    return "".join(gap + word for gap, word in zip(gaps[:kept], words[:kept], strict=True))


def repeat_first_half(text: str) -> str:
    """The first half of the words, twice."""
    words = split_words(text)
    gaps, half = _gaps(text, words), len(words) // 2
    if not half:
        return ""
    rest = zip(gaps[1:half], words[1:half], strict=True)
    once = words[0] + "".join(gap + word for gap, word in rest)
    return once + gaps[1] + once


def loop(text: str, random: np.random.Generator) -> str:
    """A few words of the text over and over, to its length or longer."""
    words = split_words(text)
    if not words:
        return ""
    separator = _gaps(text, words)[1] if len(words) > 1 else " "
    length = min(LONGEST_PERIOD, len(words))
    start = random.integers(len(words) - length + 1)
    period = separator.join(words[start : start + length])
    return separator.join([period] * max(FEWEST_PERIODS, -(-len(words) // length)))


CORRUPTIONS: dict[str, Corruption] = {
    "shuffled": Corruption("its words shuffled", lambda a, random: shuffle_words(a.text, random)),
    "shuffled_sentences": Corruption(
        "its sentences shuffled", lambda a, random: shuffle_sentences(a.text, random)
    ),
    "other_prompt": Corruption("an answer to another prompt", lambda a, _: a.other),
    "cut": Corruption("its first half alone", lambda a, _: cut(a.text)),
    "repeated_half": Corruption("its first half twice", lambda a, _: repeat_first_half(a.text)),
    "loop": Corruption("a few of its words in a loop", lambda a, random: loop(a.text, random)),
    "echo": Corruption("the prompt itself", lambda a, _: messages_of(a.prompt)[-1]["content"]),
    "praise": Corruption(
        "empty praise", lambda _, random: PRAISE[random.integers(len(PRAISE))]
    ),
    "temperature_2": Corruption("a model's text at temperature 2", lambda a, _: a.noise),
}  # fmt: skip


def corrupt(kind: str, answer: Answer, seed: int) -> str | None:
    """A copy of the answer, or None where it would have the same words or none at all.

    Args:
      kind: in CORRUPTIONS.
      answer: what the copy is made from.
      seed: of what is random, 0 or more; the same texts and seed give the same copy.
    """
    random = np.random.default_rng([seed, zlib.crc32(answer.text.encode())])
    copy = CORRUPTIONS[kind].copy(answer, random)
    return copy if copy.strip() and copy.split() != answer.text.split() else None


def rows_of_other_prompts(prompts: Sequence[str], seed: int) -> list[int | None]:
    """For each row a random one that has another prompt; None where all have the same."""
    if len(set(prompts)) < 2:
        return [None] * len(prompts)
    order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    others: list[int | None] = [None] * len(prompts)
    for place, row in enumerate(order):
        following = (order[(place + step) % len(order)] for step in range(1, len(order)))
        others[row] = next(other for other in following if prompts[other] != prompts[row])
    return others
