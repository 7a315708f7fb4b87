"""How much two texts have in common, in words: answers that repeat another, or their prompt."""

from __future__ import annotations

from collections.abc import Sequence

from paretohqd_jax.data.words import split_words

RUN = 3  # words in a row that are said again: fewer are in most texts that have a subject in common


def plain_words(text: str) -> list[str]:
    """Its words in lower case, without the marks around them; a word of marks alone is none."""
    words = (word.casefold() for word in split_words(text))
    return [plain for word in words if (plain := _without_marks(word))]


def _without_marks(word: str) -> str:
    letters = [place for place, letter in enumerate(word) if letter.isalnum()]
    return word[letters[0] : letters[-1] + 1] if letters else ""


def jaccard(one: set[str], other: set[str]) -> float:
    """The share of the words of either set that both have; 1 for two empty ones."""
    either = one | other
    return len(one & other) / len(either) if either else 1.0


def echoed_share(prompt: str, response: str) -> float:
    """The share of the response's words that lie in `RUN` words in a row which the prompt has too.

    Where either has fewer words, all of these in a row count; 0 where either has none.
    """
    asked, words = plain_words(prompt), plain_words(response)
    run = min(RUN, len(asked), len(words))
    if not run:
        return 0.0
    known = {tuple(asked[start : start + run]) for start in range(len(asked) - run + 1)}
    echoed = [False] * len(words)
    for start in range(len(words) - run + 1):
        if tuple(words[start : start + run]) in known:
            echoed[start : start + run] = [True] * run
    return sum(echoed) / len(words)


def near_duplicates(prompts: Sequence[str], responses: Sequence[str], limit: float) -> list[bool]:
    """Which rows repeat one before them, `[num_rows]`.

    A row does if the Jaccard index of its different words and those of a row of the same prompt,
    which does not itself repeat one, is above `limit`.
    """
    kept: dict[str, list[set[str]]] = {}
    repeated = []
    for prompt, response in zip(prompts, responses, strict=True):
        words, others = set(plain_words(response)), kept.setdefault(prompt, [])
        repeated.append(any(jaccard(words, other) > limit for other in others))
        if not repeated[-1]:
            others.append(words)
    return repeated
