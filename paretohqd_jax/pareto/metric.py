"""What the rules that choose rows measure: a distance from the ideal point, one per preference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import Array, is_traced


class Metric(NamedTuple):
    """A distance of rows to preferences: `root(key(offsets, *parameters))`.

    ideal and scale [M, 1]: a row's offset from the ideal point is (reward - ideal) / scale;
    parameters: arrays [M, num_preferences]; key: a function of these with the objectives in front,
    what the rows are ordered by, such as a squared distance; root: increasing, from the key to the
    distance; steepness: a number or [num_preferences], the most that a distance grows by where an
    offset grows by 1.
    """

    ideal: Array
    scale: Array
    parameters: tuple[Array, ...]
    key: Callable[..., Array]
    root: Callable[[Array], Array]
    steepness: Array | float

    def distances(self, rewards: Array) -> Array:
        """Of `rewards [num_rows, M]` to each preference: [num_preferences, num_rows]."""
        offsets = self.offsets(rewards)[:, None, :]
        return self.root(self.key(offsets, *(each[:, :, None] for each in self.parameters)))

    def offsets(self, rewards: Array) -> Array:
        return offsets_from(rewards, self.ideal, self.scale)


def offsets_from(rewards: Array, ideal: Array, scale: Array) -> Array:
    """Scaled offsets [M, num_rows] of the rows from the ideal point, with the objectives in front
    so that loops run over rows."""
    on_device = isinstance(rewards, jax.Array)
    columns = rewards.T if on_device else np.ascontiguousarray(rewards.T)
    return (columns.astype(ideal.dtype) - ideal) / scale


def box(
    low: Any, high: Any, normalize: bool, dtype: Any, xp: Any = np
) -> tuple[Array, Array, Array]:
    """The ideal point, the spread and the scale of the objectives, all [M, 1].

    Raises InputError, outside `jit`, for bounds that are not finite.
    """
    low, high = (xp.asarray(bound).astype(dtype)[:, None] for bound in (low, high))
    with np.errstate(over="ignore", invalid="ignore"):
        spread = high - low
    if not is_traced(spread) and not np.isfinite(spread).all():
        raise InputError(
            f"low {low[:, 0].tolist()}, high {high[:, 0].tolist()}: "
            "give finite numbers with a finite difference"
        )
    scale = xp.where(spread > 0, spread, 1) if normalize else xp.ones_like(spread)
    return high, spread, scale


def array_module(array: Array) -> Any:
    """jax.numpy for jax arrays, numpy for numpy's."""
    return jnp if isinstance(array, jax.Array) else np


def itself(distances: Array) -> Array:
    """The root of a metric whose key is the distance."""
    return distances
