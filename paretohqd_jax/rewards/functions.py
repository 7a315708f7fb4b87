"""Scorers that are plain functions of the text: cheap, exact, no model to load."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from paretohqd_jax.data.overlap import echoed_share
from paretohqd_jax.data.words import split_words
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def word_count(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """The number of words, see `data.words`, float32 `[num_rows]`."""
    return np.array([len(split_words(response)) for response in responses], dtype=np.float32)


def brief(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """Minus the logarithm of one plus the number of words, see `data.words`.

    Returns:
      float32 `[num_rows]`, 0 for an empty response and lower the longer the response.
    """
    return -np.log1p(word_count(prompts, responses))


def echo(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """The share of each response that repeats its prompt, see `data.overlap.echoed_share`.

    Returns:
      float32 `[num_rows]` in [0, 1]. Less is better: for gates.
    """
    shares = [echoed_share(*texts) for texts in zip(prompts, responses, strict=True)]
    return np.array(shares, dtype=np.float32)


def positivity(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """How positive the words of each response are: the compound score of VADER.

    Source: Hutto and Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of
    social media text", ICWSM 2014; package vaderSentiment, which gives four decimals.

    Returns:
      float32 `[num_rows]` in [-1, 1], 0 for neutral.

    Raises:
      InputError: vaderSentiment is not installed.
    """
    analyzer = _vader()
    compound = [analyzer.polarity_scores(response)["compound"] for response in responses]
    return np.array(compound, dtype=np.float32)


@functools.cache
def _vader() -> SentimentIntensityAnalyzer:
    """The analyzer with its lexicon, read once."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise InputError(
            "the scorer 'positivity' needs the package vaderSentiment; "
            "install it with: pip install vaderSentiment"
        ) from error
    return SentimentIntensityAnalyzer()
