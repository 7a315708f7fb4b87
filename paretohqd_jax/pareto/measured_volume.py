"""Hypervolume of any size: exact where that is quick, else a Monte-Carlo estimate and its error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paretohqd_jax.pareto.dominance import non_dominated_mask
from paretohqd_jax.pareto.hypervolume import check_points, hypervolume

# num_points ** (num_objectives / 2) points of one front take some ten seconds of one core: 1,000 of
# 6 objectives, 180 of 8, 60 of 10. The exact time grows with this power, so soon takes hours.
QUICK = 1e9
NUM_ESTIMATES = 16  # independent ones, whose spread tells the error
NUM_SAMPLES = 2**15  # of each


class MeasuredVolume(NamedTuple):
    """A hypervolume; `standard_error` is 0 where it is exact."""

    value: float
    standard_error: float


def measure_hypervolume(
    points: np.ndarray, reference: np.ndarray, exact: bool = False
) -> MeasuredVolume:
    """The hypervolume of `points [num_points, M]` above `reference [M]`, within seconds.

    Up to three objectives are always exact. Beyond the size `QUICK` the value is the mean of
    `NUM_ESTIMATES` estimates by polar coordinates (Deng and Zhang, "Approximating hypervolume and
    hypervolume contributions using polar coordinate", IEEE TEVC 2019; "DZ2019-MC" in moocore),
    always of the same samples; with `exact` it is exact, however long that takes.

    Raises InputError as `hypervolume` does.
    """
    points, reference = check_points(np.asarray(points), reference), np.asarray(reference)
    if not exact and not is_quick(*points.shape):
        above = points[(points > reference).all(axis=1)]
        points = np.unique(above[non_dominated_mask(above)], axis=0) if len(above) else above
        if not is_quick(*points.shape):
            estimates = [
                estimate_hypervolume(points, reference, NUM_SAMPLES, seed)
                for seed in range(NUM_ESTIMATES)
            ]
            error = np.std(estimates, ddof=1) / np.sqrt(NUM_ESTIMATES)
            return MeasuredVolume(float(np.mean(estimates)), float(error))
    return MeasuredVolume(float(hypervolume(points, reference)), 0.0)


def is_quick(num_points: int, num_objectives: int, repeats: int = 1) -> bool:
    """Whether `repeats` exact hypervolumes of fronts of this size take seconds."""
    return num_objectives <= 3 or repeats * num_points ** (num_objectives / 2) <= QUICK


def estimate_hypervolume(
    points: np.ndarray, reference: np.ndarray, num_samples: int, seed: int = 0
) -> float:
    """One Monte-Carlo estimate by moocore, which minimises."""
    import moocore

    points = points[(points > reference).all(axis=1)]
    if not len(points):
        return 0.0
    return moocore.hv_approx(
        -points, ref=-reference, nsamples=num_samples, seed=seed, method="DZ2019-MC"
    )
