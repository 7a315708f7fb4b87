"""What is measured of a front and of each of its models, over the runs of one method.

One rule for every measure: it is taken of each run, and the mean over runs is told; intervals are
over prompts and runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.bootstrap import Resamples, interval
from paretohqd_jax.evaluation.collapse import collapse_rates
from paretohqd_jax.evaluation.diversity import distinct_share
from paretohqd_jax.evaluation.exploitation import unrewarded_summaries
from paretohqd_jax.evaluation.frames import Box, Frame
from paretohqd_jax.evaluation.responses import ModelResponses, rewards_of, run_points
from paretohqd_jax.evaluation.single_answers import achievements, prompt_hypervolumes
from paretohqd_jax.evaluation.steering import inner_products, kendall, steerability
from paretohqd_jax.pareto import (
    generational_distance,
    igd_plus,
    non_dominated_mask,
    spacing,
    sparsity,
)
from paretohqd_jax.pareto.measured_volume import MeasuredVolume
from paretohqd_jax.policies import preferences_of

TRUNCATION_GAP = 0.1  # of the answers


@dataclass(frozen=True)
class Yardsticks:
    """What fronts are held against.

    Attributes:
      frames: of the hypervolumes, the z-score frame first and the min-max frame last.
      box: whose upper corner is the ideal point of achievements.
      union_front: `[num_points, num_objectives]`, the best mean rewards of all models compared.
    """

    frames: Sequence[Frame]
    box: Box
    union_front: np.ndarray


def front_summary(
    runs: Sequence[Sequence[ModelResponses]],
    bases: Sequence[ModelResponses],
    yardsticks: Yardsticks,
    draws: Resamples,
    exact: bool = False,
) -> dict[str, Any]:
    """What is measured of one front.

    Args:
      runs: one per seed the front was trained under, each with one entry per policy.
      bases: the model each run started from.
      yardsticks: what it is held against.
      draws: of prompts and runs.
      exact: compute exactly the hypervolumes that would else be estimated (not the intervals).

    Returns:
      `models` (see `model_summaries`); `hypervolume`, `hypervolume_error` (the standard error of a
      Monte-Carlo estimate, 0 where the value is exact) and `hypervolume_interval` by frame name;
      `prompt_hypervolume` of the answers to one prompt in the z-score frame, with its interval; in
      units of the min-max frame `igd_plus` and `generational_distance` to the union front,
      `spacing` and `sparsity`; `dominated_share`; `collapse` (shares by cause); `truncated`, a
      share. Of several policies with preferences also `steerability` with its interval and
      `kendall`, one value per objective, `inner_product` and `achievement` with their intervals;
      of others these are None.
    """
    points, drawn = run_points(runs, draws)
    rewards = rewards_of(runs)
    z_score, *_, min_max = yardsticks.frames
    volumes = {frame.name: mean_hypervolume(frame, points, exact) for frame in yardsticks.frames}
    prompt_volumes = prompt_hypervolumes(z_score, rewards)[..., None]
    scaled, union = min_max.normalised(points), min_max.normalised(yardsticks.union_front)
    return {
        "models": model_summaries(runs, bases, yardsticks.box, draws),
        "hypervolume": {name: volume.value for name, volume in volumes.items()},
        "hypervolume_error": {name: volume.standard_error for name, volume in volumes.items()},
        "hypervolume_interval": {
            frame.name: interval(frame.mean_hypervolumes(drawn)) for frame in yardsticks.frames
        },
        "prompt_hypervolume": float(prompt_volumes.mean(dtype=np.float64)),
        "prompt_hypervolume_interval": interval(draws.means(prompt_volumes).mean(axis=(1, 2))),
        "igd_plus": _over_runs(lambda run: igd_plus(run, union), scaled),
        "generational_distance": _over_runs(lambda run: generational_distance(run, union), scaled),
        "spacing": _over_runs(spacing, scaled) if scaled.shape[1] > 1 else 0.0,
        "sparsity": _over_runs(sparsity, scaled) if scaled.shape[1] > 1 else 0.0,
        "dominated_share": _over_runs(dominated_share, points),
        "collapse": collapse_rates([c for run in runs for model in run for c in model.causes]),
        "truncated": float(np.mean([model.truncated for run in runs for model in run])),
    } | _steering(runs, yardsticks, points, drawn, draws)


def _over_runs(measure: Any, points: np.ndarray) -> float:
    return float(np.mean([measure(run) for run in points]))


def _steering(
    runs: Sequence[Sequence[ModelResponses]],
    yardsticks: Yardsticks,
    points: np.ndarray,
    drawn: np.ndarray,
    draws: Resamples,
) -> dict[str, Any]:
    """What is measured by the preferences."""
    preferences = preferences_of([model.policy for model in runs[0]])
    if preferences is None or len(preferences) < 2:
        names = ("steerability", "kendall", "inner_product", "achievement")
        intervals = ("steerability", "inner_product", "achievement")
        return dict.fromkeys([*names, *(f"{name}_interval" for name in intervals)])
    z_score = yardsticks.frames[0]
    products = inner_products(preferences, z_score.normalised(points))
    drawn_products = inner_products(preferences, z_score.normalised(drawn))
    box = yardsticks.box
    achieved = achievements(preferences, rewards_of(runs), box.low, box.high)[..., None]
    return {
        "steerability": steerability(preferences, points).mean(axis=0).tolist(),
        "steerability_interval": interval(steerability(preferences, drawn).mean(axis=1)),
        "kendall": np.mean([kendall(preferences, run) for run in points], axis=0).tolist(),
        "inner_product": float(products.mean()),
        "inner_product_interval": interval(drawn_products.mean(axis=1)),
        "achievement": float(achieved.mean()),
        "achievement_interval": interval(draws.means(achieved).mean(axis=(1, 2, 3))),
    }


def mean_hypervolume(frame: Frame, points: np.ndarray, exact: bool = False) -> MeasuredVolume:
    """The mean over runs of each run's; `points` are `[num_runs, num_models, num_objectives]`."""
    volumes, errors = zip(*(frame.measured_hypervolume(run, exact) for run in points), strict=True)
    return MeasuredVolume(float(np.mean(volumes)), float(np.linalg.norm(errors)) / len(points))


def model_summaries(
    runs: Sequence[Sequence[ModelResponses]],
    bases: Sequence[ModelResponses],
    box: Box,
    draws: Resamples,
) -> list[dict[str, Any]]:
    """What is measured of each model of a front; arguments as of `front_summary`.

    Returns:
      `[num_models]` of `label`, `preference` (or None), `mean_rewards`, their `standard_errors`
      over prompts and `interval` ([low, high]), and `win_rate` with `win_rate_interval`, the share
      of prompts on which the reward is greater than the base model's (ties count half), each with
      one value per objective; `achievement` with its interval, None without a preference; mean
      `num_tokens`, `truncated` (a share), `distinct_1`, `distinct_2` and `collapse` (shares by
      cause); and what `unrewarded_summaries` says.
    """
    rewards = rewards_of(runs)
    base_rewards = rewards_of([[base] for base in bases])
    wins = (rewards > base_rewards) + (rewards == base_rewards) / 2
    unrewarded = unrewarded_summaries(runs, bases, draws)
    drawn_rewards, drawn_wins = (draws.means(values).mean(axis=1) for values in (rewards, wins))
    return [
        {
            "label": policy.label,
            "preference": policy.preference and list(policy.preference),
            "mean_rewards": rewards[:, index].mean(axis=(0, 1)).tolist(),
            "standard_errors": standard_errors(rewards[:, index].mean(axis=0)).tolist(),
            "interval": interval(drawn_rewards[:, index]),
            "win_rate": wins[:, index].mean(axis=(0, 1)).tolist(),
            "win_rate_interval": interval(drawn_wins[:, index]),
        }
        | _achievement(policy.preference, rewards[:, index], box, draws)
        | _texts([run[index] for run in runs])
        | unrewarded[index]
        for index, policy in enumerate(model.policy for model in runs[0])
    ]


def _achievement(
    preference: Sequence[float] | None, rewards: np.ndarray, box: Box, draws: Resamples
) -> dict[str, Any]:
    """Of one model, from its rewards `[num_runs, num_prompts, num_objectives]`."""
    if preference is None:
        return {"achievement": None, "achievement_interval": None}
    own = achievements(np.array([preference]), rewards[:, None], box.low, box.high)[..., None]
    return {
        "achievement": float(own.mean()),
        "achievement_interval": interval(draws.means(own).mean(axis=(1, 2, 3))),
    }


def _texts(models: Sequence[ModelResponses]) -> dict[str, Any]:
    """What the answers of one model look like, over its runs."""
    distinct = {
        f"distinct_{n}": float(np.mean([distinct_share(model.responses, n) for model in models]))
        for n in (1, 2)
    }
    return {
        "num_tokens": float(np.mean([model.num_tokens for model in models])),
        "truncated": float(np.mean([model.truncated for model in models])),
        **distinct,
        "collapse": collapse_rates([cause for model in models for cause in model.causes]),
    }


def standard_errors(rewards: np.ndarray) -> np.ndarray:
    """Of the mean over prompts, `[num_objectives]`; 0 where one prompt leaves no spread."""
    num_prompts = len(rewards)
    if num_prompts == 1:
        return np.zeros(rewards.shape[1])
    return rewards.std(axis=0, ddof=1) / np.sqrt(num_prompts)


def dominated_share(points: np.ndarray) -> float:
    """The share of `points [num_points, M]` that another beats: no worse in all, better in some."""
    return float(1 - np.mean(non_dominated_mask(points)))


def truncation_warnings(
    base: Mapping[str, Any], fronts: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """In words, where the token limit cut other shares of the answers than of the base model's.

    Rewards then compare whole answers with cut ones.
    """
    return [
        f"{name}: the token limit cut {front['truncated']:.0%} of the answers, of the base model's "
        f"{base['truncated']:.0%}; rewards of whole answers and of cut ones hardly compare, so "
        "raise config.evaluate.max_new_tokens"
        for name, front in fronts.items()
        if abs(front["truncated"] - base["truncated"]) > TRUNCATION_GAP
    ]
