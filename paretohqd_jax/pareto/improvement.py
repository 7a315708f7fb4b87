"""Answers that beat two others on every reward at once, out of which SIPO learns.

Plain numpy on the host. Shapes: C candidates, R rewards; larger is better.
"""

from __future__ import annotations

import numpy as np


def improves(candidates: np.ndarray, originals: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Where a candidate is above both originals by more than `margin`, bool `[C, R]`.

    A candidate improves on them if it does so under every reward: a tie is no improvement.

    Args:
      candidates: `[C, R]`.
      originals: `[2, R]`.
      margin: 0 or more, in the units of the rewards.
    """
    return candidates > originals.max(axis=0) + margin


def best_improvement(candidates: np.ndarray, improved: np.ndarray) -> int | None:
    """The candidate with the largest sum of rewards of those that improve; None if none does.

    Args:
      candidates: `[C, R]`.
      improved: bool `[C, R]`, as of `improves`.
    """
    survivors = np.flatnonzero(improved.all(axis=1))
    return int(survivors[candidates[survivors].sum(axis=1).argmax()]) if survivors.size else None


def is_worth_it(rewrite: np.ndarray, draft: np.ndarray) -> bool:
    """Whether a rewrite takes its draft's place: some reward is larger. Both are `[R]`."""
    return bool((rewrite > draft).any())


def losers(labels: np.ndarray, originals: np.ndarray, rule: str) -> np.ndarray:
    """Which of two originals the better answer is preferred to, bool `[pairs, 2, M]`.

    The first is the chosen one. With "both" these are both, for every objective. With "weaker" each
    objective has the one that its label says is the worse, and where it says nothing, the one of
    the smaller reward.

    Args:
      labels: -1, 0 or 1, `[pairs, M]`.
      originals: each objective's reward of either, `[pairs, 2, M]`.
      rule: "weaker" or "both".
    """
    if rule == "both":
        return np.ones(originals.shape, bool)
    by_reward = np.where(originals[:, 0] >= originals[:, 1], 1, -1)
    chosen_is_better = np.where(labels == 0, by_reward, labels) > 0
    return np.stack([~chosen_is_better, chosen_is_better], axis=1)
