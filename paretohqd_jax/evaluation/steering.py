"""Whether models do what their preferences ask for, from their mean rewards.

Expected rewards of models that sample form a convex set: mean rewards can never tell a model that
answers in a hollow of the front from one that answers from either end by the toss of a coin. For
single answers see `paretohqd_jax.evaluation.single_answers`.
"""

from __future__ import annotations

import numpy as np


def inner_products(preferences: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean over models of weight times mean reward, summed over objectives.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[..., num_models, num_objectives]` mean rewards in units that compare across
        objectives, such as those of a z-score frame (`Frame.normalised`).

    Returns:
      `[...]`.
    """
    return np.mean(np.sum(np.asarray(preferences) * points, axis=-1), axis=-1)


def steerability(preferences: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of weight and mean reward over the models, per objective.

    Tied values share their mean rank. Where weights tie, not even models in perfect order reach 1,
    so the correlation is divided by what these would have. Without any spread, in the weights or in
    the rewards, nothing was steered and the result is 0.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[..., num_models, num_objectives]` mean rewards.

    Returns:
      `[..., num_objectives]` in [-1, 1]; 1 means that more weight always brought more reward.
    """
    # Grids such as i/10, 1 - i/10 hold weights that are equal but for the last bit.
    weights = _centred_ranks(np.round(preferences, 9))
    rewards = _centred_ranks(np.asarray(points))
    num_models = len(weights)
    covariance = np.sum(weights * rewards, axis=-2)
    norm = np.sqrt(np.sum(weights**2, axis=-2) * np.sum(rewards**2, axis=-2))
    untied = num_models * (num_models**2 - 1) / 12
    attainable = np.sqrt(np.sum(weights**2, axis=-2) / untied) if num_models > 1 else 0.0
    limit = norm * attainable
    steered = covariance / np.where(limit > 0, limit, 1.0)
    return np.where(limit > 0, np.clip(steered, -1, 1), 0.0)


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks along the last axis but one, less their mean."""
    ours, theirs = values[..., :, None, :], values[..., None, :, :]
    ranks = np.sum(theirs < ours, axis=-2) + np.sum(theirs == ours, axis=-2) / 2
    return ranks - ranks.mean(axis=-2, keepdims=True)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the mean ranks of `a` and `b`, both `[num_values]`."""
    ranks_a, ranks_b = (ranks - ranks.mean() for ranks in (_mean_ranks(a), _mean_ranks(b)))
    norm = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float(np.clip((ranks_a * ranks_b).sum() / norm, -1, 1)) if norm > 0 else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(size)
    return (last_rank - (size - 1) / 2)[group]


def kendall(preferences: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Kendall's rank correlation of weight and mean reward over the models, per objective.

    The share of pairs of models in which more weight brought more reward less that in which it
    brought less, corrected for ties (tau-b). Without any spread, in the weights or in the rewards,
    nothing was steered and the result is 0.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[..., num_models, num_objectives]` mean rewards.

    Returns:
      `[..., num_objectives]` in [-1, 1].
    """
    # Grids such as i/10, 1 - i/10 hold weights that are equal but for the last bit.
    weights, rewards = _pair_signs(np.round(preferences, 9)), _pair_signs(np.asarray(points))
    agreement = np.sum(weights * rewards, axis=(-3, -2))
    norm = np.sqrt(np.sum(weights**2, axis=(-3, -2)) * np.sum(rewards**2, axis=(-3, -2)))
    return agreement / np.where(norm > 0, norm, 1.0)


def _pair_signs(values: np.ndarray) -> np.ndarray:
    """Which of each two models has more, `[..., num_models, num_models, num_objectives]`."""
    return np.sign(values[..., :, None, :] - values[..., None, :, :])
