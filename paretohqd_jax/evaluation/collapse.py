"""Language collapse: responses that say almost nothing, or the same thing over and over.

The paper reports a collapse rate without thresholds. This is our detector `collapse_v1`; its
thresholds are below, and a changed threshold needs a new name, since rates compare only under the
same detector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from paretohqd_jax.data.words import split_words

DETECTOR = "collapse_v1"
CAUSES = ("short", "loop")

MIN_WORDS = 3  # fewer is "short"
MIN_WORDS_FOR_SHARE = 8  # the share of repeated 4-grams means little in fewer words
MAX_REPEATED_SHARE = 0.5  # more is "loop"
MAX_WORD_RUN = 7  # one word more often than this in a row is "loop"


def collapse_causes(
    responses: Sequence[str], periodic_tail: Sequence[bool] | None = None
) -> list[str]:
    """Why each response counts as collapsed.

    Args:
      responses: `[num_rows]` texts, in words as of `data.words`.
      periodic_tail: `[num_rows]`, True where the generation was cut off at its token limit while
        it repeated a period of at most 16 tokens for at least the fourth time; None where tokens
        are not known.

    Returns:
      `[num_rows]`: "short", "loop" or "" (not collapsed). A short response is never a loop.
    """
    if periodic_tail is None:
        periodic_tail = [False] * len(responses)
    return [
        _cause(split_words(response), bool(tail))
        for response, tail in zip(responses, periodic_tail, strict=True)
    ]


def _cause(words: list[str], periodic_tail: bool) -> str:
    if len(words) < MIN_WORDS:
        return "short"
    many_repeats = (
        len(words) >= MIN_WORDS_FOR_SHARE and repeated_four_gram_share(words) > MAX_REPEATED_SHARE
    )
    if many_repeats or longest_word_run(words) > MAX_WORD_RUN or periodic_tail:
        return "loop"
    return ""


def repeated_four_gram_share(words: Sequence[str]) -> float:
    """One minus distinct over all 4-grams of `words`; 0 for fewer than four words."""
    four_grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return 1 - len(set(four_grams)) / len(four_grams) if four_grams else 0.0


def longest_word_run(words: Sequence[str]) -> int:
    """How often one word comes in a row at most."""
    return max((len(list(run)) for _, run in itertools.groupby(words)), default=0)


def collapse_rates(causes: Sequence[str]) -> dict[str, float]:
    """The share of responses with each cause, and with any (`total`), each in [0, 1]."""
    rates = {cause: float(np.mean([found == cause for found in causes])) for cause in CAUSES}
    return rates | {"total": float(np.mean([found != "" for found in causes]))}
