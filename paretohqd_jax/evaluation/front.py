"""How good the fronts of a run are, beside its base model.

A model is one point: its mean rewards over the held-out prompts. The models of a family form its
front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretohqd_jax.data import words
from paretohqd_jax.evaluation.bootstrap import CONFIDENCE, NUM_RESAMPLES, resample
from paretohqd_jax.evaluation.collapse import DETECTOR
from paretohqd_jax.evaluation.exploitation import measured_scorers
from paretohqd_jax.evaluation.frames import box_of, min_max_frame, z_score_frame
from paretohqd_jax.evaluation.responses import ModelResponses, mean_points
from paretohqd_jax.evaluation.summaries import Yardsticks, front_summary, model_summaries
from paretohqd_jax.evaluation.truth import Truth, describe_truth, truth_summary
from paretohqd_jax.pareto import non_dominated_mask


def evaluate_fronts(
    objectives: Sequence[str],
    fronts: Mapping[str, Sequence[ModelResponses]],
    base: ModelResponses,
    training_rewards: np.ndarray,
    truth: Truth | None = None,
) -> dict[str, Any]:
    """Everything that is measured of a run, in float64.

    Args:
      objectives: `[num_objectives]` names.
      fronts: for each family, in order, one entry per policy.
      base: the model that all started from.
      training_rewards: `[num_rows, num_objectives]` of training rows, by the same reward models,
        for the z-score frame and the box of achievements.
      truth: of the task, where it is known.

    Returns:
      A JSON-able dict with `objectives`, `num_prompts`, `collapse_detector`, `words` (what counts
      as one), `frames` (how each hypervolume is normalised, and its reference point), `box` (of
      achievements), `bootstrap`, `unrewarded` (names of the scores beside the rewards that all
      models have), `base` and `fronts`. The base model is described as each of the
      `models` of a front, see `model_summaries`, and has a `hypervolume` of its own; a front has
      what `front_summary` says. With a truth there is `truth`, what `describe_truth` returns, and
      in `base` and each front the `truth` of `truth_summary`.
    """
    training_rewards = np.asarray(training_rewards, dtype=np.float64)
    rows = f"{len(training_rewards)} training rows, scored by the reward models"
    every = [*fronts.values(), [base]]
    compared = np.concatenate([mean_points([models]) for models in every])
    models = f"the {len(compared)} models compared here ({', '.join([*fronts, 'base'])})"
    frames = [
        z_score_frame(training_rewards, f"mean and standard deviation of {rows}"),
        min_max_frame(compared, f"least and greatest mean rewards of {models}"),
    ]
    box = box_of(training_rewards, f"least and greatest rewards of {rows}")
    yardsticks = Yardsticks(frames, box, union_front(compared))
    draws = resample(len(base.rewards))
    [base_summary] = model_summaries([[base]], [base], box, draws)
    base_point = mean_points([[base]])
    result = {
        "objectives": list(objectives),
        "num_prompts": len(base.rewards),
        "collapse_detector": DETECTOR,
        "words": {"version": words.VERSION, "definition": words.DEFINITION},
        "frames": [frame.to_dict() for frame in frames],
        "box": box.to_dict(),
        "bootstrap": {"confidence": CONFIDENCE, "num_resamples": NUM_RESAMPLES},
        "unrewarded": measured_scorers([model for models in every for model in models]),
        "base": base_summary
        | {"hypervolume": {frame.name: frame.hypervolume(base_point) for frame in frames}},
        "fronts": {
            family: front_summary([models], [base], yardsticks, draws)
            for family, models in fronts.items()
        },
    }
    if truth is not None:
        result["truth"] = describe_truth(truth)
        result["base"]["truth"] = truth_summary(truth, [[base]], box, draws)
        for family, models in fronts.items():
            result["fronts"][family]["truth"] = truth_summary(truth, [models], box, draws)
    return result


def union_front(points: np.ndarray) -> np.ndarray:
    """The different ones of `points [num_points, num_objectives]` that no other dominates."""
    return np.unique(points[non_dominated_mask(points)], axis=0)
