"""What models answered, scored, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from paretohqd_jax.evaluation.bootstrap import Resamples
from paretohqd_jax.policies import Policy


@dataclass(frozen=True)
class ModelResponses:
    """What one model answered to the held-out prompts, scored.

    Attributes:
      policy: the model.
      rewards: `[num_prompts, num_objectives]`.
      causes: `[num_prompts]`, from `collapse_causes`.
      responses: `[num_prompts]` texts.
      num_tokens: `[num_prompts]`, of each response.
      truncated: `[num_prompts]`, whether the token limit cut it.
      unrewarded: `[num_prompts]` by name, scores that are no objectives (see `exploitation`).
    """

    policy: Policy
    rewards: np.ndarray
    causes: Sequence[str]
    responses: Sequence[str]
    num_tokens: Sequence[int]
    truncated: Sequence[bool]
    unrewarded: Mapping[str, np.ndarray] = field(default_factory=dict)


def rewards_of(runs: Sequence[Sequence[ModelResponses]]) -> np.ndarray:
    """float64 `[num_runs, num_models, num_prompts, num_objectives]`."""
    return np.array([[model.rewards for model in models] for models in runs], dtype=np.float64)


def mean_points(runs: Sequence[Sequence[ModelResponses]]) -> np.ndarray:
    """Mean rewards over prompts and runs, float64 `[num_models, num_objectives]`."""
    return rewards_of(runs).mean(axis=(0, 2))


def run_points(
    runs: Sequence[Sequence[ModelResponses]], draws: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Mean rewards `[num_runs, num_models, num_objectives]`, and `[num_resamples, ...]` of them."""
    rewards = rewards_of(runs)
    return rewards.mean(axis=2), draws.means(rewards)
