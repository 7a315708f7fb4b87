"""Several fronts on one normalisation: what a method gains over another, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.data import words
from paretohqd_jax.evaluation.bootstrap import CONFIDENCE, NUM_RESAMPLES, interval, resample
from paretohqd_jax.evaluation.collapse import DETECTOR
from paretohqd_jax.evaluation.frames import Box, Frame, min_max_frame
from paretohqd_jax.evaluation.front import union_front
from paretohqd_jax.evaluation.responses import ModelResponses, mean_points, run_points
from paretohqd_jax.evaluation.summaries import (
    Yardsticks,
    front_summary,
    mean_hypervolume,
    model_summaries,
)


@dataclass(frozen=True)
class Contender:
    """A method's front on the held-out prompts.

    Attributes:
      runs: one per seed, each with one entry per policy.
      bases: `[num_runs]`, the model each run started from.
    """

    runs: Sequence[Sequence[ModelResponses]]
    bases: Sequence[ModelResponses]


def compare_fronts(
    objectives: Sequence[str],
    contenders: Mapping[str, Contender],
    bases: Mapping[str, Sequence[ModelResponses]],
    z_score: Frame,
    box: Box,
    exact: bool = False,
) -> dict[str, Any]:
    """Measures all contenders by the same yardsticks and on the same draws of prompts.

    Args:
      objectives: `[num_objectives]` names.
      contenders: by name; all answered the same prompts. The others are compared with the first.
      bases: by name, the answers of each base model in all runs that started from it.
      z_score: the frame of the scored training rows.
      box: of the same rows.
      exact: as of `front_summary`.

    Returns:
      A JSON-able dict with `objectives`, `num_prompts`, `collapse_detector`, `words`, `frames`,
      `box`, `bootstrap`, `bases` and `fronts`. A base model is described as the models of a front,
      by its answers in all runs. Each front has `num_runs` and all that `front_summary` says; each
      but the first has `gain` by frame name, how much its hypervolume is above the first one's,
      with `gain_interval`.
    """
    answered = {name: one.runs for name, one in contenders.items()}
    for name, answers in bases.items():
        answered.setdefault(name, [[base] for base in answers])  # with --base it is there already
    compared = np.concatenate([mean_points(runs) for runs in answered.values()])
    models = f"the {len(compared)} models compared here ({', '.join(answered)})"
    frames = [z_score, min_max_frame(compared, f"least and greatest mean rewards of {models}")]
    yardsticks = Yardsticks(frames, box, union_front(compared))
    first = next(iter(contenders.values()))
    num_prompts = len(first.bases[0].rewards)
    fronts = {}
    for name, contender in contenders.items():
        draws = resample(num_prompts, len(contender.runs))
        fronts[name] = {"num_runs": len(contender.runs)} | front_summary(
            contender.runs, contender.bases, yardsticks, draws, exact
        )
        if contender is not first:
            fronts[name] |= _gain(frames, contender, first, exact)
    return {
        "objectives": list(objectives),
        "num_prompts": num_prompts,
        "collapse_detector": DETECTOR,
        "words": {"version": words.VERSION, "definition": words.DEFINITION},
        "frames": [frame.to_dict() for frame in frames],
        "box": box.to_dict(),
        "bootstrap": {"confidence": CONFIDENCE, "num_resamples": NUM_RESAMPLES},
        "bases": {
            name: model_summaries(
                [[base] for base in answers], answers, box, resample(num_prompts, len(answers))
            )[0]
            for name, answers in bases.items()
        },
        "fronts": fronts,
    }


def _gain(
    frames: Sequence[Frame], contender: Contender, first: Contender, exact: bool
) -> dict[str, Any]:
    """Hypervolume above the first contender's; both on the same draws of prompts."""
    num_prompts = len(first.bases[0].rewards)
    gains: dict[str, Any] = {"gain": {}, "gain_interval": {}}
    (ours, drawn), (theirs, their_drawn) = (
        run_points(one.runs, resample(num_prompts, len(one.runs), stream))
        for stream, one in enumerate((contender, first))
    )
    for frame in frames:
        volumes = [mean_hypervolume(frame, points, exact).value for points in (ours, theirs)]
        gains["gain"][frame.name] = volumes[0] - volumes[1]
        differences = frame.mean_hypervolumes(drawn) - frame.mean_hypervolumes(their_drawn)
        gains["gain_interval"][frame.name] = interval(differences)
    return gains
