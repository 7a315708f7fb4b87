"""From preferences to the scores that a model is asked for, by Rewards-in-Context (2402.10207).

Scores are standardised rewards. What is asked for is a point near the front of a box that reaches
from each objective's lowest score to its highest: as good as can be on what matters, as little as
need be on the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.preference import check_preferences

DECIMALS = 1  # of what is asked for


@dataclass(frozen=True)
class Targets:
    """How a preference becomes the scores to ask for.

    Attributes:
      mapping: "l2", the weights over their Euclidean norm, "linf", the heaviest objective at its
        highest and the others by M times their weight, or "linear", the weights themselves, as
        shares of the way from lowest to highest.
      low: of each objective, `[num_objectives]`.
      high: the same.
    """

    mapping: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.mapping not in MAPPINGS:
            raise InputError(f"mapping is {self.mapping!r}; use one of {', '.join(MAPPINGS)}")
        ends = zip(self.low, self.high, strict=False)
        ordered = all(-math.inf < low < high < math.inf for low, high in ends)
        if len(self.low) != len(self.high) or not ordered:
            raise InputError(f"the scores to ask for go from {self.low} to {self.high}")

    def scores(self, preferences: np.ndarray) -> np.ndarray:
        """What to ask for, `[..., num_objectives]` in `DECIMALS`, for preferences of that shape."""
        preferences = check_preferences(np.atleast_2d(preferences), len(self.low))
        return self._at(MAPPINGS[self.mapping](np.asarray(preferences, np.float64)))

    def near_front(self, random: np.random.Generator, size: int) -> np.ndarray:
        """Random scores to ask for, `[size, num_objectives]`: all but one objective at its highest.

        That one is the smallest of random shares of the way, where it stays.
        """
        shares = random.random((size, len(self.low)))
        smallest = shares.argmin(axis=1)[:, None] == np.arange(len(self.low))
        return self._at(np.where(smallest, shares, 1.0))

    def _at(self, shares: np.ndarray) -> np.ndarray:
        low, high = np.array(self.low), np.array(self.high)
        return np.round(shares * (high - low) + low, DECIMALS)


def _l2(preferences: np.ndarray) -> np.ndarray:
    return preferences / np.linalg.norm(preferences, axis=-1, keepdims=True)


def _linf(preferences: np.ndarray) -> np.ndarray:
    num_objectives = preferences.shape[-1]
    heaviest = preferences.argmax(axis=-1)[:, None] == np.arange(num_objectives)
    return np.where(heaviest, 1.0, np.minimum(num_objectives * preferences, 1.0))


MAPPINGS = {"l2": _l2, "linf": _linf, "linear": lambda preferences: preferences}


def good_on_some(scores: np.ndarray, quantile: float) -> np.ndarray:
    """Rows that reach the quantile of some objective, bool `[num_rows]`.

    Of scores `[num_rows, num_objectives]`; quantiles lie between rows, as numpy interpolates them.
    """
    return (scores >= np.quantile(scores, quantile, axis=0)).any(axis=1)
