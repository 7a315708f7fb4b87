"""How good a front is: mean rewards, hypervolume, steerability, dominated points.

A model is one point: its mean rewards over the held-out prompts. The N models of a stage form its
front. The paper states neither the reference point nor the normalisation of its hypervolume, so
two variants are reported, each with all that is needed to compute it again; values of different
frames do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.collapse import DETECTOR, collapse_rates
from paretohqd_jax.pareto import hypervolume, non_dominated_mask

Z_SCORE_REFERENCE = -3.0  # standard deviations below the mean of the scored data, in each objective


@dataclass(frozen=True)
class ModelResponses:
    """What one model answered to the held-out prompts, scored.

    Attributes:
      rewards: `[num_prompts, num_objectives]`.
      causes: `[num_prompts]`, from `collapse_causes`.
    """

    rewards: np.ndarray
    causes: Sequence[str]


@dataclass(frozen=True)
class Frame:
    """Where hypervolume is measured: normalised = (reward - offset) / scale, above `reference`.

    Attributes:
      name: of the normalisation.
      source: in words, the data that `offset` and `scale` come from.
      offset: `[num_objectives]`, in units of the rewards.
      scale: `[num_objectives]`, in units of the rewards, positive.
      reference: `[num_objectives]`, in normalised units.
    """

    name: str
    source: str
    offset: np.ndarray
    scale: np.ndarray
    reference: np.ndarray

    def hypervolume(self, points: np.ndarray) -> float:
        """Of `points` `[num_points, num_objectives]`; one not above the reference adds nothing."""
        return float(hypervolume((points - self.offset) / self.scale, self.reference))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the reference point in units of the rewards too."""
        return {
            "name": self.name,
            "source": self.source,
            "formula": "(reward - offset) / scale",
            "offset": self.offset.tolist(),
            "scale": self.scale.tolist(),
            "reference": self.reference.tolist(),
            "reference_in_rewards": (self.offset + self.scale * self.reference).tolist(),
        }


def z_score_frame(rewards: np.ndarray, source: str) -> Frame:
    """Mean and standard deviation of `rewards` `[num_rows, num_objectives]`, fixed reference."""
    reference = np.full(rewards.shape[1], Z_SCORE_REFERENCE)
    return Frame("z-score", source, rewards.mean(axis=0), _positive(rewards.std(axis=0)), reference)


def min_max_frame(points: np.ndarray, source: str) -> Frame:
    """Least and greatest of `points` `[num_points, num_objectives]`, reference 0."""
    low, high = points.min(axis=0), points.max(axis=0)
    return Frame("min-max", source, low, _positive(high - low), np.zeros(points.shape[1]))


def _positive(scale: np.ndarray) -> np.ndarray:
    """An objective without spread is shifted only."""
    return np.where(scale > 0, scale, 1.0)


def evaluate_fronts(
    objectives: Sequence[str],
    preferences: np.ndarray,
    fronts: Mapping[str, Sequence[ModelResponses]],
    base: ModelResponses,
    training_rewards: np.ndarray,
) -> dict[str, Any]:
    """Everything that is measured of a run, in float64.

    Args:
      objectives: `[num_objectives]` names.
      preferences: `[num_preferences, num_objectives]`.
      fronts: for each stage, in order, one entry per preference.
      base: the model that all started from.
      training_rewards: `[num_rows, num_objectives]` of the scored rows, for the z-score frame.

    Returns:
      A JSON-able dict with `objectives`, `preferences`, `num_prompts`, `collapse_detector`,
      `frames` (how each hypervolume is normalised, and its reference point), `base` and `fronts`.
      Base and fronts have `hypervolume` by frame name and `collapse` (shares by cause); base and
      each of the `models` of a front have `mean_rewards` and `standard_errors`, one per objective.
      A front has `steerability`, one per objective, and `dominated_share` besides.
    """
    preferences = np.asarray(preferences, dtype=np.float64)
    summaries = {stage: [_summary(model) for model in models] for stage, models in fronts.items()}
    base_summary = _summary(base)
    points = {
        stage: np.array([model["mean_rewards"] for model in models])
        for stage, models in summaries.items()
    }
    base_point = np.array([base_summary["mean_rewards"]])
    compared = np.concatenate([*points.values(), base_point])
    training_rewards = np.asarray(training_rewards, dtype=np.float64)
    frames = [
        z_score_frame(
            training_rewards,
            f"mean and standard deviation of the {len(training_rewards)} scored training rows",
        ),
        min_max_frame(
            compared,
            f"least and greatest mean rewards of the {len(compared)} models compared here "
            f"({', '.join([*fronts, 'base'])})",
        ),
    ]
    return {
        "objectives": list(objectives),
        "preferences": preferences.tolist(),
        "num_prompts": len(base.rewards),
        "collapse_detector": DETECTOR,
        "frames": [frame.to_dict() for frame in frames],
        "base": base_summary
        | {"hypervolume": {frame.name: frame.hypervolume(base_point) for frame in frames}},
        "fronts": {
            stage: {
                "models": summaries[stage],
                "hypervolume": {frame.name: frame.hypervolume(points[stage]) for frame in frames},
                "steerability": steerability(preferences, points[stage]),
                "dominated_share": dominated_share(points[stage]),
                "collapse": collapse_rates([c for model in models for c in model.causes]),
            }
            for stage, models in fronts.items()
        },
    }


def _summary(model: ModelResponses) -> dict[str, Any]:
    rewards = np.asarray(model.rewards, dtype=np.float64)
    return {
        "mean_rewards": rewards.mean(axis=0).tolist(),
        "standard_errors": standard_errors(rewards).tolist(),
        "collapse": collapse_rates(model.causes),
    }


def standard_errors(rewards: np.ndarray) -> np.ndarray:
    """Of the mean over prompts, `[num_objectives]`; 0 where one prompt leaves no spread."""
    num_prompts = len(rewards)
    if num_prompts == 1:
        return np.zeros(rewards.shape[1])
    return rewards.std(axis=0, ddof=1) / np.sqrt(num_prompts)


def steerability(preferences: np.ndarray, points: np.ndarray) -> list[float]:
    """Spearman's rank correlation of weight and mean reward over the models, per objective.

    Tied values share their mean rank. Without any spread, in the weights or in the rewards, nothing
    was steered and the result is 0.

    Args:
      preferences: `[num_models, num_objectives]`.
      points: `[num_models, num_objectives]` mean rewards.

    Returns:
      `[num_objectives]` in [-1, 1]; 1 means that more weight always brought more reward.
    """
    # Grids such as i/10, 1 - i/10 hold weights that are equal but for the last bit.
    weights = np.round(preferences, 9)
    return [spearman(w, r) for w, r in zip(weights.T, points.T, strict=True)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the mean ranks of `a` and `b`, both `[num_values]`."""
    ranks_a, ranks_b = (ranks - ranks.mean() for ranks in (_mean_ranks(a), _mean_ranks(b)))
    norm = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float(np.clip((ranks_a * ranks_b).sum() / norm, -1, 1)) if norm > 0 else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(size)
    return (last_rank - (size - 1) / 2)[group]


def dominated_share(points: np.ndarray) -> float:
    """The share of `points` that another of them beats: no worse in all, better in some."""
    return float(1 - np.mean(non_dominated_mask(points)))
