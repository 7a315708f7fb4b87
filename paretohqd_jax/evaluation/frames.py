"""Where hypervolume is measured.

The paper states neither the reference point nor the normalisation of its hypervolume, so two
variants are reported, each with all that is needed to compute it again; values of different frames
do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from paretohqd_jax.pareto import hypervolume, measure_hypervolume
from paretohqd_jax.pareto.measured_volume import MeasuredVolume, estimate_hypervolume, is_quick

Z_SCORE_REFERENCE = -3.0  # standard deviations below the mean of the scored data, in each objective
NUM_DRAW_SAMPLES = 2**12  # of the estimate of one draw, whose error is small beside their spread


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

    def normalised(self, points: np.ndarray) -> np.ndarray:
        """`points` `[..., num_objectives]` in the units of this frame."""
        return (points - self.offset) / self.scale

    def hypervolume(self, points: np.ndarray) -> float:
        """Of `points` `[num_points, num_objectives]`; one not above the reference adds nothing."""
        return self.measured_hypervolume(points).value

    def measured_hypervolume(self, points: np.ndarray, exact: bool = False) -> MeasuredVolume:
        """The same with its standard error, 0 where it is exact, as it always is with `exact`."""
        return measure_hypervolume(self.normalised(points), self.reference, exact)

    def mean_hypervolumes(self, points: np.ndarray) -> np.ndarray:
        """For many draws at once: the mean over the runs of each.

        Estimated by Monte Carlo, on the same samples in all draws, where exact ones take too long.

        Args:
          points: `[num_draws, num_runs, num_models, num_objectives]`.

        Returns:
          `[num_draws]`.
        """
        runs = self.normalised(points).reshape(-1, *points.shape[2:])
        if not is_quick(*runs.shape[1:], repeats=len(runs)):
            volumes = [estimate_hypervolume(run, self.reference, NUM_DRAW_SAMPLES) for run in runs]
        elif runs.shape[-1] > 3:  # each by a library, which a compiled program would call back for
            volumes = [hypervolume(run, self.reference, validate=False) for run in runs]
        else:
            volumes = _hypervolumes(runs, self.reference)
        return np.asarray(volumes).reshape(points.shape[:2]).mean(axis=1)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Frame:
        """What `to_dict` returned."""
        arrays = {name: np.array(stored[name]) for name in ("offset", "scale", "reference")}
        return cls(stored["name"], stored["source"], **arrays)

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


@jax.jit
def _hypervolumes(points: jax.Array, reference: jax.Array) -> jax.Array:
    return jax.vmap(lambda front: hypervolume(front, reference, validate=False))(points)


@dataclass(frozen=True)
class Box:
    """Where rewards lie: the box of achievements, whose upper corner is the ideal point.

    Attributes:
      low: `[num_objectives]`, in units of the rewards.
      high: `[num_objectives]`.
      source: in words, the data that it comes from.
    """

    low: np.ndarray
    high: np.ndarray
    source: str

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Box:
        """What `to_dict` returned."""
        return cls(np.array(stored["low"]), np.array(stored["high"]), stored["source"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"low": self.low.tolist(), "high": self.high.tolist(), "source": self.source}


def box_of(rewards: np.ndarray, source: str) -> Box:
    """The box of `rewards` `[num_rows, num_objectives]`; an objective without spread has side 1."""
    low, high = rewards.min(axis=0), rewards.max(axis=0)
    return Box(np.where(high > low, low, high - 1), high, source)


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
