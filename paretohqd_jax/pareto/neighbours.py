"""What trained preferences have to say about one that is not among them."""

from __future__ import annotations

import numpy as np

from paretohqd_jax.errors import InputError


def nearest_preference(preferences: np.ndarray, preference: np.ndarray) -> int:
    """The index of the nearest of `preferences [num_preferences, M]`, the first of equals."""
    distances = np.linalg.norm(np.asarray(preferences) - preference, axis=1)
    return int(np.round(distances, 9).argmin())


def mixture_weights(preferences: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """Weights [num_preferences] with which `preferences` average to `preference`, near ones first.

    Of all weights w >= 0 with sum 1 and w @ preferences = preference, those of the least
    sum_i w_i |preferences_i - preference|^2. That is linear interpolation on the Delaunay
    triangulation, as the lower hull of the points lifted to the paraboloid (Edelsbrunner and
    Seidel, 1986): between the two neighbours for two objectives, barycentric in a simplex for M,
    so at most M weights are not 0. A preference of the list has weight 1.

    Args:
      preferences: [num_preferences, M], on the simplex.
      preference: [M], on the simplex.

    Raises:
      InputError: `preference` lies outside their convex hull, where nothing is in between.
    """
    from scipy.optimize import linprog

    points = np.asarray(preferences, np.float64)
    costs = np.sum((points - preference) ** 2, axis=1)
    solution = linprog(costs, A_eq=points.T, b_eq=preference)  # rows sum to 1, so the weights do
    if solution.x is None:
        raise InputError(
            f"preference {format_preference(preference)} lies outside the trained ones, so there "
            "is nothing to interpolate between; the nearest of them is "
            f"{format_preference(points[nearest_preference(points, preference)])}"
        )
    weights = np.where(solution.x > 1e-9, solution.x, 0.0)
    return weights / weights.sum()


def format_preference(preference: np.ndarray) -> str:
    """As on the command line, such as 0.8,0.2."""
    return ",".join(f"{weight:.4g}" for weight in preference)
