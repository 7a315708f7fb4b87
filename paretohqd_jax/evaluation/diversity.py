"""How much the responses of a model differ among themselves."""

from __future__ import annotations

from collections.abc import Sequence

from paretohqd_jax.data.words import split_words


def distinct_share(responses: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams over all n-grams of all responses, in [0, 1].

    Words are those of `data.words`. The share falls with the number and length of responses, so it
    compares models that answered the same prompts. Source: Li et al., "A diversity-promoting
    objective function for neural conversation models", 2016. 0 where no response has n words.
    """
    n_grams = [
        tuple(words[start : start + n])
        for words in map(split_words, responses)
        for start in range(len(words) - n + 1)
    ]
    return len(set(n_grams)) / len(n_grams) if n_grams else 0.0
