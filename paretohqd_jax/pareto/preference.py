"""Preferences on the simplex and the box of rewards they are measured in."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.dominance import non_dominated_mask
from paretohqd_jax.pareto.inputs import Array, check_rewards, is_traced

SUM_TOLERANCE = 0.02  # published lists round: (.33, .33, .33)

# The 13 points of Rewards-in-Context (arXiv 2402.10207), in the order of its evaluation.
RIC_13 = np.array(
    [
        [0.0, 0.0, 1.0],
        [0.0, 1.0, 0.0],
        [0.1, 0.1, 0.8],
        [0.1, 0.8, 0.1],
        [0.2, 0.2, 0.6],
        [0.2, 0.4, 0.4],
        [0.2, 0.6, 0.2],
        [1 / 3, 1 / 3, 1 / 3],
        [0.4, 0.4, 0.2],
        [0.4, 0.2, 0.4],
        [0.6, 0.2, 0.2],
        [0.8, 0.1, 0.1],
        [1.0, 0.0, 0.0],
    ]
)


def preference_grid(grid: int | str, num_objectives: int | None = None) -> np.ndarray:
    """Preferences [num_preferences, num_objectives], float64, each row on the simplex.

    `grid` is a number of points or a name. A number gives the simplex lattice of that size, all
    multiples of 1/H that sum to 1 in ascending lexicographic order: any number for two objectives
    (the default), C(H + M - 1, M - 1) for M. Names: "ric-11" (two objectives, steps of 0.1) and
    "ric-13" (three objectives), the lists of Rewards-in-Context, arXiv 2402.10207.

    Raises InputError for an unknown name or a number that no lattice has.
    """
    if isinstance(grid, str):
        named = {"ric-11": lambda: _lattice(10, 2), "ric-13": RIC_13.copy}
        if grid not in named:
            raise InputError(
                f"preference grid {grid!r}: unknown; give a number of points, {', '.join(named)}, "
                "or a list such as '0.8,0.2;0.5,0.5'"
            )
        points = named[grid]()
        if num_objectives not in (None, points.shape[1]):
            raise InputError(
                f"preference grid {grid!r}: has {points.shape[1]} objectives, not {num_objectives}"
            )
        return points
    num_objectives = 2 if num_objectives is None else num_objectives
    if grid < 1 or num_objectives < 1:
        raise InputError(f"preference grid: {grid} points, {num_objectives} objectives; give >= 1")
    if grid == 1:
        return np.full((1, num_objectives), 1 / num_objectives)
    divisions, size = 0, 1
    while size < grid and num_objectives > 1:
        smaller, divisions = size, divisions + 1
        size = math.comb(divisions + num_objectives - 1, num_objectives - 1)
    if size != grid:
        near = f"{smaller} or {size}" if num_objectives > 1 else "1"
        raise InputError(
            f"preference grid: no lattice of {num_objectives} objectives has {grid} points; "
            f"try {near}"
        )
    return _lattice(divisions, num_objectives)


def _lattice(divisions: int, num_objectives: int) -> np.ndarray:
    """All vectors of multiples of 1/divisions with sum 1, by stars and bars."""
    bars = itertools.combinations(range(divisions + num_objectives - 1), num_objectives - 1)
    edges = np.array([(-1, *chosen, divisions + num_objectives - 1) for chosen in bars])
    return (np.diff(edges, axis=1) - 1) / divisions


def check_preferences(preferences: Any, num_objectives: int) -> Array:
    """Returns `preferences [num_preferences, num_objectives]` with rows that sum to exactly 1.

    Raises InputError naming the row for a negative or NaN weight or a sum further than 0.02
    from 1. Inside `jit` only the shape is checked.
    """
    traced = is_traced(preferences)
    weights = preferences if traced else np.asarray(preferences, np.float64)
    if weights.ndim != 2 or weights.shape[1] != num_objectives:
        raise InputError(
            f"preferences: shape {weights.shape}; give [num_preferences, {num_objectives}]"
        )
    if not traced:
        sums = weights.sum(axis=1)
        bad = ~((weights >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"preferences: row {row} is {weights[row].tolist()}; "
                "give weights >= 0 that sum to 1"
            )
    return weights / weights.sum(axis=1, keepdims=True)


def representatives(preferences: Array) -> list[int]:
    """Indices of one preference per objective, the heaviest on it, and of the most balanced one.

    Of `preferences [num_preferences, num_objectives]`. Ties go to the smaller index and repeats are
    dropped, so there may be fewer than num_objectives + 1. Needs concrete values (not under `jit`).
    """
    weights = np.asarray(preferences, np.float64)
    weights = check_preferences(weights, weights.shape[-1])
    heaviest = np.round(weights, 9).argmax(axis=0)
    imbalance = np.linalg.norm(weights - 1 / weights.shape[1], axis=1)
    balanced = np.round(imbalance, 9).argmin()
    return list(dict.fromkeys([*heaviest.tolist(), int(balanced)]))


def reward_range(
    rewards: Array,
    scope: Literal["data", "pareto", "quantile"] = "data",
    *,
    ranks: Array | None = None,
    quantiles: tuple[float, float] = (0.001, 1.0),
    validate: bool = True,
) -> tuple[Array, Array]:
    """(low, high), each [num_objectives], of `rewards [num_rows, num_objectives]`.

    "data": minimum and maximum of all rows, O(N M). "pareto": of the rows whose `ranks [num_rows]`
    are >= 0 (what `pool_layers` returns), of the first layer if no ranks are given; one bad row
    cannot stretch it. "quantile": the two `quantiles` of each objective. numpy in, numpy out, of
    the same type but for "quantile", whose values are floats. Works under `jit` and `vmap` with
    `validate=False`.

    Raises InputError for an unknown scope, no rows, or ranks that are all -1 (outside `jit`).
    """
    array = check_rewards(rewards, validate)
    xp = jnp if is_traced(array, ranks) else np
    if array.shape[0] == 0:
        raise InputError("rewards: no rows, so no range")
    if scope == "data":
        # numpy reduces neighbouring numbers many times faster than the first of two axes.
        columns = array.T if xp is jnp else np.ascontiguousarray(array.T)
        low, high = columns.min(axis=1), columns.max(axis=1)
    elif scope == "pareto":
        first = ranks is None
        inside = (non_dominated_mask(array, validate=False) if first else ranks >= 0)[:, None]
        if not is_traced(inside) and not np.any(inside):
            raise InputError("ranks: all are -1, so no row is in the pool to take the range of")
        low = xp.where(inside, array, array.max(axis=0)).min(axis=0)
        high = xp.where(inside, array, array.min(axis=0)).max(axis=0)
    elif scope == "quantile":
        low, high = xp.quantile(array, xp.asarray(quantiles), axis=0)
    else:
        raise InputError(f"range scope {scope!r}: unknown; choose data, pareto or quantile")
    if isinstance(rewards, jax.Array):
        low, high = jnp.asarray(low), jnp.asarray(high)
    return low, high


def compromise_point(preferences: Array, low: Array, high: Array) -> Array:
    """W = low + preference * (high - low): [num_preferences, num_objectives].

    The ideal point `high` and W span a preference's ray; the heavier a weight, the smaller the
    gap to the ideal in that objective (ParetoHqD, arXiv 2504.16628). Works under `jit` and `vmap`.
    """
    weights = check_preferences(preferences, np.shape(low)[0])
    xp = jnp if any(isinstance(array, jax.Array) for array in (weights, low, high)) else np
    low, high = (xp.asarray(bound, dtype=float) for bound in (low, high))  # small integers wrap
    return low + weights * (high - low)
