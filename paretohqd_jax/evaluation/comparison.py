"""Several fronts on one normalisation: what a method gains over another, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.data import words
from paretohqd_jax.evaluation.bootstrap import CONFIDENCE, NUM_RESAMPLES, interval, resample
from paretohqd_jax.evaluation.collapse import DETECTOR
from paretohqd_jax.evaluation.frames import Frame, min_max_frame
from paretohqd_jax.evaluation.front import (
    ModelResponses,
    front_summary,
    mean_hypervolume,
    mean_points,
    model_summaries,
    run_points,
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
    z_score: Frame,
    exact: bool = False,
) -> dict[str, Any]:
    """Measures all contenders in the same frames and on the same draws of prompts.

    Args:
      objectives: `[num_objectives]` names.
      contenders: by name; all answered the same prompts. The others are compared with the first.
      z_score: the frame of the scored training rows of one of the runs.
      exact: as of `front_summary`.

    Returns:
      A JSON-able dict with `objectives`, `num_prompts`, `collapse_detector`, `words`, `frames`,
      `bootstrap` and `fronts`. Each front has `num_runs`, `base` (as its models) and
      all that `front_summary` says; each but the first has `gain` by frame name, how much its
      hypervolume is above the first one's, with `gain_interval`.
    """
    every = [(contender.runs, contender.bases) for contender in contenders.values()]
    compared = np.concatenate(
        [mean_points(models) for runs, bases in every for models in (runs, [[b] for b in bases])]
    )
    frames = [
        z_score,
        min_max_frame(
            compared,
            f"least and greatest mean rewards of the {len(compared)} models compared here "
            f"({', '.join(contenders)}, and their base models)",
        ),
    ]
    first = next(iter(contenders.values()))
    fronts = {}
    for name, contender in contenders.items():
        draws = resample(len(first.bases[0].rewards), len(contender.runs))
        [base] = model_summaries([[base] for base in contender.bases], contender.bases, draws)
        fronts[name] = {
            "num_runs": len(contender.runs),
            "base": base,
        } | front_summary(contender.runs, contender.bases, frames, compared, draws, exact)
        if contender is not first:
            fronts[name] |= _gain(frames, contender, first, exact)
    return {
        "objectives": list(objectives),
        "num_prompts": len(first.bases[0].rewards),
        "collapse_detector": DETECTOR,
        "words": {"version": words.VERSION, "definition": words.DEFINITION},
        "frames": [frame.to_dict() for frame in frames],
        "bootstrap": {"confidence": CONFIDENCE, "num_resamples": NUM_RESAMPLES},
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
