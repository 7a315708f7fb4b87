"""What single answers are worth, which mean rewards do not tell.

A model that answers from either end of a front by the toss of a coin has balanced mean rewards and
no balanced answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.pareto import chebyshev_distance
from paretohqd_jax.pareto.chebyshev import AUGMENTATION, MIN_GAP


def achievements(
    preferences: np.ndarray,
    rewards: np.ndarray,
    low: Sequence[float],
    high: Sequence[float],
    augmentation: float = AUGMENTATION,
) -> np.ndarray:
    """How near each answer comes to the ideal point in the direction of its model's preference.

    The negative of its augmented weighted Chebyshev distance
    (`paretohqd_jax.pareto.chebyshev_distance`) times the preference's least gap: 0 for an answer at
    the ideal point, about -1 for one that lacks a whole side of the box in the objective that the
    preference is most for. (The distance itself is in units of that gap, which on a corner of the
    simplex is all but 0: the corners' models would outweigh all others in any mean.)

    Args:
      preferences: `[num_models, num_objectives]`.
      rewards: `[..., num_models, num_answers, num_objectives]`, such as of several runs.
      low: `[num_objectives]`, with `high` the box of the training rows, by the same reward models.
      high: `[num_objectives]`, the ideal point.
      augmentation: of the distance.

    Returns:
      float64 `[..., num_models, num_answers]`. Their mean over answers is what a model achieves.
    """
    of_models = np.moveaxis(np.asarray(rewards, np.float64), -3, 0)
    least_gaps = np.maximum(1 - np.max(preferences, axis=1), MIN_GAP)
    achieved = [
        -gap
        * chebyshev_distance(
            answers.reshape(-1, answers.shape[-1]),
            preference[None],
            low,
            high,
            augmentation=augmentation,
        )
        for answers, preference, gap in zip(
            of_models, np.asarray(preferences), least_gaps, strict=True
        )
    ]
    shape = of_models.shape[1:-1]
    return np.stack([values.reshape(shape) for values in achieved], axis=-2)


def prompt_hypervolumes(frame: Frame, rewards: np.ndarray) -> np.ndarray:
    """The hypervolume of the answers of all models to one prompt, for each prompt, in float32.

    What someone gets who picks among the models' answers.

    Args:
      frame: of the hypervolumes.
      rewards: `[..., num_models, num_prompts, num_objectives]`, such as of several runs.

    Returns:
      `[..., num_prompts]`. Their mean over prompts is the hypervolume per prompt.
    """
    prompts = np.swapaxes(rewards, -3, -2)
    volumes = frame.mean_hypervolumes(prompts.reshape(-1, 1, *prompts.shape[-2:]))
    return volumes.reshape(prompts.shape[:-2])
