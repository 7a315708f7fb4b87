"""How near models come to a front that is known: for tasks that are made so.

Mean rewards of models that sample lie anywhere in the convex hull of what single answers reach, so
each of the two has a volume of its own to be held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.bootstrap import Resamples, interval
from paretohqd_jax.evaluation.frames import Box, Frame
from paretohqd_jax.evaluation.responses import ModelResponses, rewards_of
from paretohqd_jax.evaluation.single_answers import achievements, prompt_hypervolumes
from paretohqd_jax.policies import preferences_of
from paretohqd_jax.user_functions import find_function

NUM_CURVE_POINTS = 101  # that pictures draw
MEASURES = {
    "hypervolume_ratio": "hypervolume of mean rewards / of the truth",
    "prompt_hypervolume_ratio": "hypervolume per prompt / of the truth",
    "achievement_ratio": "achievement of the truth / of single answers",
    "distance": "distance of single answers to the truth",
}
NOTE = (
    "The ratios are 1 at best, which no finite number of models reaches by hypervolume; the "
    "distance is 0 at best."
)


class Truth(Protocol):
    """What a function of `config.evaluate.truth` returns; rewards are in their own units."""

    @property
    def reference(self) -> np.ndarray:
        """Of the hypervolumes, `[num_objectives]`."""

    @property
    def volume(self) -> float:
        """Of all that single answers can reach above the reference."""

    @property
    def mean_volume(self) -> float:
        """Of all that mean rewards can reach above it."""

    @property
    def points(self) -> np.ndarray:
        """Many points of the front of single answers, `[num_points, num_objectives]`."""

    def distance(self, rewards: np.ndarray) -> np.ndarray:
        """From single answers `[..., num_objectives]` to the front, `[...]`, 0 at best."""

    def towards(self, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The point of the front that is met from `start` against `direction`, all `[M]`."""


class Measured(NamedTuple):
    """A value, and what it was on draws of prompts and runs, `[num_resamples]`."""

    value: float
    drawn: np.ndarray


def find_truth(name: str, num_objectives: int) -> Truth:
    """What the function of `config.evaluate.truth` returns.

    Raises:
      InputError: there is no such function, or it returns another thing, or of other objectives.
    """
    option = f"config.evaluate.truth={name!r}"
    truth = find_function(name, option)()
    missing = [part for part in Truth.__annotations__ if not hasattr(truth, part)]
    missing += [part for part in vars(Truth) if part[0] != "_" and not hasattr(truth, part)]
    if missing:
        raise InputError(f"{option}: what it returns has no {', '.join(missing)}")
    if np.shape(truth.reference) != (num_objectives,):
        raise InputError(
            f"{option}: its reference has shape {np.shape(truth.reference)}, and the run has "
            f"{num_objectives} objectives"
        )
    return truth


def describe_truth(truth: Truth) -> dict[str, Any]:
    """JSON-able: volumes, the reference and of two objectives the `curve`; what is measured."""
    points = np.asarray(truth.points)
    step = max((len(points) - 1) // (NUM_CURVE_POINTS - 1), 1)
    return {
        "reference": np.asarray(truth.reference).tolist(),
        "volume": truth.volume,
        "mean_volume": truth.mean_volume,
        "curve": np.round(points[::step], 5).tolist() if points.shape[1] == 2 else None,
        "measures": MEASURES,
        "note": NOTE,
    }


def truth_summary(
    truth: Truth, runs: Sequence[Sequence[ModelResponses]], box: Box, draws: Resamples
) -> dict[str, Any]:
    """The measures of `truth_measures` and their intervals; None for one that cannot be told."""
    summary: dict[str, Any] = {}
    for name, measured in truth_measures(truth, runs, box, draws).items():
        summary[name] = measured and measured.value
        summary[f"{name}_interval"] = measured and interval(measured.drawn)
    return summary


def truth_measures(
    truth: Truth, runs: Sequence[Sequence[ModelResponses]], box: Box, draws: Resamples
) -> dict[str, Measured | None]:
    """MEASURES of one front, means over runs.

    There is no achievement ratio where policies have no preferences, or where the truth reaches the
    ideal point of the box: achievements are then 0 or more.

    Args:
      truth: of the task.
      runs: one per seed, each with one entry per policy.
      box: of the achievements.
      draws: of prompts and runs.
    """
    rewards = rewards_of(runs)
    num_objectives = rewards.shape[-1]
    frame = Frame(
        "truth", "rewards", np.zeros(num_objectives), np.ones(num_objectives), truth.reference
    )
    points, drawn = rewards.mean(axis=2), draws.means(rewards)
    volume = np.mean([frame.hypervolume(run) for run in points])
    prompt_volumes = prompt_hypervolumes(frame, rewards)[..., None]
    distances = truth.distance(rewards)[..., None]
    measures: dict[str, Measured | None] = {
        "hypervolume_ratio": Measured(
            float(volume / truth.mean_volume), frame.mean_hypervolumes(drawn) / truth.mean_volume
        ),
        "prompt_hypervolume_ratio": Measured(
            float(prompt_volumes.mean(dtype=np.float64) / truth.volume),
            draws.means(prompt_volumes).mean(axis=(1, 2)) / truth.volume,
        ),
        "achievement_ratio": None,
        "distance": Measured(float(distances.mean()), draws.means(distances).mean(axis=(1, 2, 3))),
    }
    preferences = preferences_of([model.policy for model in runs[0]])
    if preferences is not None:
        best = best_achievements(truth, preferences, box).mean()
        own = achievements(preferences, rewards, box.low, box.high)[..., None]
        if best < 0:  # the box's ideal point is beyond the truth, so that there is a share
            measures["achievement_ratio"] = Measured(
                float(best / own.mean()), best / draws.means(own).mean(axis=(1, 2, 3))
            )
    return measures


def best_achievements(truth: Truth, preferences: np.ndarray, box: Box) -> np.ndarray:
    """The largest achievement on the true front at each of the preferences, `[num_preferences]`.

    Of the front's many points and of those where the preferences' rays meet it, so a little below
    the largest of all where points are sparse.
    """
    side = box.high - box.low
    best = []
    for preference in np.asarray(preferences):
        met = truth.towards(box.high, (1 - preference) * side)
        answers = np.concatenate([truth.points, met[None]])
        best.append(achievements(preference[None], answers[None], box.low, box.high).max())
    return np.array(best)
