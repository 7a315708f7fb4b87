"""Small standard indicators of a set of points: how far from a front, how evenly spread."""

from __future__ import annotations

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import Array, check_rewards


def crowding_distance(rewards: Array, *, validate: bool = True) -> Array:
    """Crowding distance [num_rows] of the rows of one layer `rewards [num_rows, num_objectives]`.

    Per objective, the gap between a row's two neighbours over the layer's range, summed; rows at
    either end of an objective get infinity, and an objective with zero range adds nothing
    (Deb et al. 2002, NSGA-II). O(M N log N). Works under `jit` and `vmap` with `validate=False`.
    """
    array = check_rewards(rewards, validate)
    xp = jnp if isinstance(rewards, jax.Array) else np
    num_rows = array.shape[0]
    if num_rows <= 2:
        return xp.full(num_rows, xp.inf)
    order = xp.argsort(array, axis=0, stable=True)
    small = xp.asarray(array, dtype=float) / 16  # no difference overflows, nor does 1 / it vanish
    ordered = xp.take_along_axis(small, order, axis=0)
    spread = ordered[-1] - ordered[0]
    gaps = (ordered[2:] - ordered[:-2]) / xp.where(spread > 0, spread, 1)
    ends = xp.where(spread > 0, xp.inf, 0)[None]
    gaps = xp.concatenate([ends, gaps, ends])
    return xp.take_along_axis(gaps, xp.argsort(order, axis=0), axis=0).sum(axis=1)


def igd_plus(points: Array, front: Array, *, validate: bool = True) -> Array:
    """Mean over `front [F, M]` of the IGD+ distance to the nearest of `points [P, M]`; scalar.

    Only the objectives in which a point falls short of the front row count (Ishibuchi et al.
    2015), so it is 0 exactly if every front row is weakly dominated. O(F P M) time and memory.
    Differentiable, and works under `jit` and `vmap` with `validate=False`.
    """
    xp, points, front = _two_sets(points, front, validate)
    shortfall = xp.maximum(front[:, None] - points[None], 0)
    return _safe_sqrt(xp, (shortfall**2).sum(axis=2).min(axis=1)).mean()


def generational_distance(points: Array, front: Array, *, validate: bool = True) -> Array:
    """Mean over `points [P, M]` of the Euclidean distance to the nearest of `front [F, M]`; scalar.

    How far the points are from the front, however little of it they cover; `igd_plus` asks the
    reverse (Van Veldhuizen and Lamont 1998, with distances averaged as they are). O(F P M) time and
    memory. Differentiable, and works under `jit` and `vmap` with `validate=False`.
    """
    xp, points, front = _two_sets(points, front, validate)
    squares = ((points[:, None] - front[None]) ** 2).sum(axis=2)
    return _safe_sqrt(xp, squares.min(axis=1)).mean()


def spacing(points: Array, *, validate: bool = True) -> Array:
    """Standard deviation of the gaps between `points [P, M]` and their nearest others; scalar.

    A gap is the sum of the differences in all objectives, the deviation has P - 1 in its
    denominator (Schott 1995). 0 for points at equal gaps, and for one alone. O(P^2 M) time and
    memory. Differentiable almost everywhere; `jit` and `vmap` with `validate=False`.
    """
    xp, points = _one_set(points, validate)
    num_points = len(points)
    if num_points == 1:
        return xp.zeros(())[()]
    gaps = abs(points[:, None] - points[None]).sum(axis=2)
    nearest = xp.where(xp.eye(num_points, dtype=bool), xp.inf, gaps).min(axis=1)
    return _safe_sqrt(xp, ((nearest - nearest.mean()) ** 2).sum() / (num_points - 1))


def sparsity(points: Array, *, validate: bool = True) -> Array:
    """Mean squared gap between neighbours among `points [P, M]`, summed over objectives; scalar.

    Neighbours are those that follow each other in an objective's own order; the mean is over P - 1
    of them (Xu et al. 2020, PGMORL, who ask it of the non-dominated points). Smaller is denser; 0
    for one point. O(M P log P). Differentiable; `jit` and `vmap` with `validate=False`.
    """
    xp, points = _one_set(points, validate)
    if len(points) == 1:
        return xp.zeros(())[()]
    return (xp.diff(xp.sort(points, axis=0), axis=0) ** 2).sum() / (len(points) - 1)


def epsilon_indicator(points: Array, front: Array, *, validate: bool = True) -> Array:
    """Smallest e such that `points [P, M]` + e weakly dominate all of `front [F, M]`; scalar.

    The additive epsilon indicator (Zitzler et al. 2003) for maximisation: <= 0 if every front
    row is already weakly dominated. O(F P M) time and memory. Differentiable almost everywhere;
    `jit` and `vmap` with `validate=False`.
    """
    xp, points, front = _two_sets(points, front, validate)
    return (front[:, None] - points[None]).max(axis=2).min(axis=1).max()


def _one_set(points: Array, validate: bool) -> tuple[ModuleType, Array]:
    array = check_rewards(points, validate, "points")
    if len(array) == 0:
        raise InputError("points: there are none")
    xp = jnp if isinstance(points, jax.Array) else np
    return xp, xp.asarray(array, dtype=float)


def _two_sets(points: Array, front: Array, validate: bool) -> tuple[ModuleType, Array, Array]:
    arrays = [check_rewards(points, validate, "points"), check_rewards(front, validate, "front")]
    if arrays[0].shape[1] != arrays[1].shape[1] or 0 in arrays[0].shape + arrays[1].shape:
        raise InputError(f"points {arrays[0].shape} and front {arrays[1].shape}: shapes do not fit")
    xp = jnp if isinstance(points, jax.Array) or isinstance(front, jax.Array) else np
    return xp, *(xp.asarray(array, dtype=float) for array in arrays)


def _safe_sqrt(xp: ModuleType, squares: Array) -> Array:
    """sqrt whose derivative at 0 is 0 instead of infinite."""
    positive = squares > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, squares, 1)), 0)
