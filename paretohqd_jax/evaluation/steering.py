"""Whether models do what their preferences ask for, from their mean rewards.

Expected rewards of models that sample form a convex set: mean rewards can never tell a model that
answers in a hollow of the front from one that answers from either end by the toss of a coin. For
single answers see `paretohqd_jax.evaluation.single_answers`.
"""

from __future__ import annotations

import numpy as np


def inner_product(preferences: np.ndarray, points: np.ndarray) -> float:
    """Mean over models of weight times mean reward, summed over objectives.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[num_models, num_objectives]` mean rewards in units that compare across objectives,
        such as those of a z-score frame (`Frame.normalised`).
    """
    return float(np.mean(np.sum(np.asarray(preferences) * points, axis=1)))


def kendall(preferences: np.ndarray, points: np.ndarray) -> list[float]:
    """Kendall's rank correlation of weight and mean reward over the models, per objective.

    The share of pairs of models in which more weight brought more reward less that in which it
    brought less, corrected for ties (tau-b). Without any spread, in the weights or in the rewards,
    nothing was steered and the result is 0.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[num_models, num_objectives]` mean rewards.

    Returns:
      `[num_objectives]` in [-1, 1].
    """
    from scipy.stats import kendalltau

    # Grids such as i/10, 1 - i/10 hold weights that are equal but for the last bit.
    weights = np.round(preferences, 9)
    taus = [
        kendalltau(w, r).statistic for w, r in zip(weights.T, np.transpose(points), strict=True)
    ]
    return np.nan_to_num(taus, nan=0.0).tolist()
