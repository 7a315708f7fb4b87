"""How good a front is: mean rewards, hypervolume, distance to the best front, steerability.

A model is one point: its mean rewards over the held-out prompts. The models of a family form its
front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.data import words
from paretohqd_jax.evaluation.bootstrap import (
    CONFIDENCE,
    NUM_RESAMPLES,
    Resamples,
    interval,
    resample,
)
from paretohqd_jax.evaluation.collapse import DETECTOR, collapse_rates
from paretohqd_jax.evaluation.diversity import distinct_share
from paretohqd_jax.evaluation.frames import Frame, min_max_frame, z_score_frame
from paretohqd_jax.pareto import igd_plus, non_dominated_mask
from paretohqd_jax.pareto.measured_volume import MeasuredVolume
from paretohqd_jax.policies import Policy, preferences_of


@dataclass(frozen=True)
class ModelResponses:
    """What one model answered to the held-out prompts, scored.

    Attributes:
      policy: the model.
      rewards: `[num_prompts, num_objectives]`.
      causes: `[num_prompts]`, from `collapse_causes`.
      responses: `[num_prompts]` texts.
      num_tokens: `[num_prompts]`, of each response.
    """

    policy: Policy
    rewards: np.ndarray
    causes: Sequence[str]
    responses: Sequence[str]
    num_tokens: Sequence[int]


def evaluate_fronts(
    objectives: Sequence[str],
    fronts: Mapping[str, Sequence[ModelResponses]],
    base: ModelResponses,
    training_rewards: np.ndarray,
) -> dict[str, Any]:
    """Everything that is measured of a run, in float64.

    Args:
      objectives: `[num_objectives]` names.
      fronts: for each family, in order, one entry per policy.
      base: the model that all started from.
      training_rewards: `[num_rows, num_objectives]` of training rows, by the same reward models,
        for the z-score frame.

    Returns:
      A JSON-able dict with `objectives`, `num_prompts`, `collapse_detector`,
      `words` (what counts as one), `frames` (how each hypervolume is normalised, and its reference
      point), `bootstrap`, `base` and `fronts`. The base model is described as each of the `models`
      of a front, see `model_summaries`, and has a `hypervolume` of its own; a front has what
      `front_summary` says.
    """
    training_rewards = np.asarray(training_rewards, dtype=np.float64)
    every = [*fronts.values(), [base]]
    compared = np.concatenate([mean_points([models]) for models in every])
    frames = [
        z_score_frame(
            training_rewards,
            f"mean and standard deviation of {len(training_rewards)} training rows, scored by the "
            "reward models",
        ),
        min_max_frame(
            compared,
            f"least and greatest mean rewards of the {len(compared)} models compared here "
            f"({', '.join([*fronts, 'base'])})",
        ),
    ]
    draws = resample(len(base.rewards))
    [base_summary] = model_summaries([[base]], [base], draws)
    base_point = mean_points([[base]])
    return {
        "objectives": list(objectives),
        "num_prompts": len(base.rewards),
        "collapse_detector": DETECTOR,
        "words": {"version": words.VERSION, "definition": words.DEFINITION},
        "frames": [frame.to_dict() for frame in frames],
        "bootstrap": {"confidence": CONFIDENCE, "num_resamples": NUM_RESAMPLES},
        "base": base_summary
        | {"hypervolume": {frame.name: frame.hypervolume(base_point) for frame in frames}},
        "fronts": {
            family: front_summary([models], [base], frames, compared, draws)
            for family, models in fronts.items()
        },
    }


def mean_points(runs: Sequence[Sequence[ModelResponses]]) -> np.ndarray:
    """Mean rewards over prompts and runs, float64 `[num_models, num_objectives]`."""
    return _rewards(runs).mean(axis=(0, 2))


def _rewards(runs: Sequence[Sequence[ModelResponses]]) -> np.ndarray:
    """`[num_runs, num_models, num_prompts, num_objectives]`."""
    return np.array([[model.rewards for model in models] for models in runs], dtype=np.float64)


def front_summary(
    runs: Sequence[Sequence[ModelResponses]],
    bases: Sequence[ModelResponses],
    frames: Sequence[Frame],
    compared: np.ndarray,
    draws: Resamples,
    exact: bool = False,
) -> dict[str, Any]:
    """What is measured of one front.

    Args:
      runs: one per seed the front was trained under, each with one entry per policy.
      bases: the model each run started from.
      frames: of the hypervolumes.
      compared: `[num_points, num_objectives]` mean rewards whose best ones are the union front.
      draws: of prompts and runs.
      exact: compute exactly the hypervolumes that would else be estimated (not the intervals).

    Returns:
      `models` (see `model_summaries`); `hypervolume`, `hypervolume_error` (the standard error of a
      Monte-Carlo estimate, 0 where the value is exact) and `hypervolume_interval` by frame name, of
      the mean over runs; `igd_plus`, the distance to the union front in units of the last frame;
      `steerability`, one per objective, or None of a single policy or of policies without
      preferences; `dominated_share`; `collapse` (shares by cause).
    """
    points, drawn = run_points(runs, draws)
    preferences = preferences_of([model.policy for model in runs[0]])
    steered = preferences is not None and len(preferences) > 1
    best = frames[-1].normalised(np.unique(compared[non_dominated_mask(compared)], axis=0))
    mean = points.mean(axis=0)
    volumes = {frame.name: mean_hypervolume(frame, points, exact) for frame in frames}
    return {
        "models": model_summaries(runs, bases, draws),
        "hypervolume": {name: volume.value for name, volume in volumes.items()},
        "hypervolume_error": {name: volume.standard_error for name, volume in volumes.items()},
        "hypervolume_interval": {
            frame.name: interval(frame.mean_hypervolumes(drawn)) for frame in frames
        },
        "igd_plus": float(igd_plus(frames[-1].normalised(mean), best)),
        "steerability": steerability(preferences, mean) if steered else None,
        "dominated_share": dominated_share(mean),
        "collapse": collapse_rates([c for run in runs for model in run for c in model.causes]),
    }


def run_points(
    runs: Sequence[Sequence[ModelResponses]], draws: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Mean rewards `[num_runs, num_models, num_objectives]`, and `[num_resamples, ...]` of them."""
    rewards = _rewards(runs)
    return rewards.mean(axis=2), draws.means(rewards)


def mean_hypervolume(frame: Frame, points: np.ndarray, exact: bool = False) -> MeasuredVolume:
    """The mean over runs of each run's; `points` are `[num_runs, num_models, num_objectives]`."""
    volumes, errors = zip(*(frame.measured_hypervolume(run, exact) for run in points), strict=True)
    return MeasuredVolume(float(np.mean(volumes)), float(np.linalg.norm(errors)) / len(points))


def model_summaries(
    runs: Sequence[Sequence[ModelResponses]], bases: Sequence[ModelResponses], draws: Resamples
) -> list[dict[str, Any]]:
    """What is measured of each model of a front; arguments as of `front_summary`.

    Returns:
      `[num_models]` of `label`, `preference` (or None), `mean_rewards`, their `standard_errors`
      over prompts and `interval` ([low, high]), and `win_rate` with `win_rate_interval`, the share
      of prompts on which the reward is greater than the base model's (ties count half), each with
      one value per objective; mean `num_tokens`, `distinct_1`, `distinct_2` and `collapse` (shares
      by cause).
    """
    rewards = _rewards(runs)
    base_rewards = _rewards([[base] for base in bases])
    wins = (rewards > base_rewards) + (rewards == base_rewards) / 2
    drawn_rewards, drawn_wins = (draws.means(values).mean(axis=1) for values in (rewards, wins))
    policies = [model.policy for model in runs[0]]
    return [
        {
            "label": policies[index].label,
            "preference": policies[index].preference and list(policies[index].preference),
            "mean_rewards": rewards[:, index].mean(axis=(0, 1)).tolist(),
            "standard_errors": standard_errors(rewards[:, index].mean(axis=0)).tolist(),
            "interval": interval(drawn_rewards[:, index]),
            "win_rate": wins[:, index].mean(axis=(0, 1)).tolist(),
            "win_rate_interval": interval(drawn_wins[:, index]),
            "num_tokens": float(np.mean([run[index].num_tokens for run in runs])),
        }
        | {
            f"distinct_{n}": float(
                np.mean([distinct_share(run[index].responses, n) for run in runs])
            )
            for n in (1, 2)
        }
        | {"collapse": collapse_rates([cause for run in runs for cause in run[index].causes])}
        for index in range(len(policies))
    ]


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
    """The share of `points [num_points, M]` that another beats: no worse in all, better in some."""
    return float(1 - np.mean(non_dominated_mask(points)))
