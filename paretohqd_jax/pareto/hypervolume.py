"""Exact hypervolume: the volume that points dominate above a reference point.

Everything follows from one quantity. Sweep the points in descending order of objective m; the
*gain* of a point is the volume it adds in the other objectives to what the points before it
cover there. Then the hypervolume is sum_i gain_i (p_i,m - reference_m), and the gain along m is
also the derivative with respect to p_i,m: growing p_i,m moves exactly that face.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.inputs import (
    Array,
    bucket_size,
    check_rewards,
    exact_float32,
    is_traced,
    pad_rows,
)
from paretohqd_jax.pareto.order import descending_code, order_keys, stable_argsort
from paretohqd_jax.pareto.sieve import survivor_size, survivors
from paretohqd_jax.pareto.sweep import staircase_gains


def hypervolume(points: Array, reference: Array, *, validate: bool = True) -> Array | float:
    """Exact hypervolume of `points [num_points, M]` above `reference [M]`.

    Maximisation; a point that is not above the reference in every objective counts nothing, and
    dominated or repeated points change nothing. Sums run in float64; numpy input gives a float64
    scalar, jax input a float32 one. One to three objectives: pure JAX, O(N log N) plus, for three,
    moves within the current staircase; `jax.grad` gives the exact derivatives for points and
    reference (at ties, one of the one-sided ones). Four or more: moocore's dimension sweep, when
    traced by `jax.pure_callback`, without gradient. Works under `jit` and `vmap` with
    `validate=False`.

    Raises InputError for NaN or infinity and for a reference of the wrong length.
    """
    array = check_points(points, reference, validate)
    num_objectives = array.shape[1]
    if is_traced(array, reference):
        if num_objectives > 3:
            shape = jax.ShapeDtypeStruct((), jnp.float32)
            return jax.pure_callback(
                lambda p, r: np.float32(_by_library(p, r)),
                shape,
                array,
                reference,
                vmap_method="sequential",
            )
        keys = order_keys(array if is_traced(array) else exact_float32(array))
        with jax.enable_x64(True):
            heights = jnp.asarray(array, jnp.float64) - jnp.asarray(reference, jnp.float64)
            return _volume(heights, keys).astype(jnp.float32)
    volume = _on_host(array, np.asarray(reference, np.float64))
    return jnp.float32(volume) if isinstance(points, jax.Array) else np.float64(volume)


def check_points(points: Array, reference: Array, validate: bool = True) -> Array:
    """`points` as arrays are worked on; raises InputError as `hypervolume` does."""
    array = check_rewards(points, validate, "points")
    if np.shape(reference) != array.shape[1:]:
        raise InputError(f"reference: shape {np.shape(reference)}; give [{array.shape[1]}]")
    return array


@jax.core.eval_context()
def _on_host(points: np.ndarray, reference: np.ndarray) -> float:
    if not np.isfinite(reference).all():
        raise InputError(f"reference: {reference.tolist()}; give finite numbers")
    above = functools.reduce(np.logical_and, map(np.greater, points.T, reference))
    if not above.any():
        return 0.0
    points = points if above.all() else points[above]
    kept = survivors(points)
    points = points if len(kept) == len(points) else points[kept]
    if points.shape[1] > 3:
        return _by_library(points, reference)
    order_only = exact_float32(points)
    size = survivor_size(len(points)) if len(kept) < len(above) else bucket_size(len(points))
    with jax.enable_x64(True):
        padded = pad_rows(points, size, fill=-np.inf, dtype=np.float64)
        return float(_jitted_volume(padded, reference.view(), pad_rows(order_only, size)))


def _by_library(points: np.ndarray, reference: np.ndarray) -> float:
    """moocore minimises, and its sweeps crash on infinities: only finite points above go in."""
    import moocore

    points, reference = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    points = points[((points > reference) & np.isfinite(points)).all(axis=1)]
    return float(moocore.hypervolume(-points, ref=-reference)) if len(points) else 0.0


@jax.jit
def _jitted_volume(points: jax.Array, reference: jax.Array, order_only: jax.Array) -> jax.Array:
    heights = jnp.maximum(points - reference, 0)  # 0 for padding, which is -inf
    order, gains = _swept_gains(heights, order_keys(order_only), 0)
    return (gains * heights[order, 0]).sum()


def _swept_gains(
    heights: jax.Array, keys: jax.Array, objective: int
) -> tuple[jax.Array, jax.Array]:
    """(order, gains), both [num_points]: the sweep along `objective` and each point's gain in it.

    `heights [num_points, M]` float64 above the reference, 0 throughout for points that count
    nothing; `keys`, int32, order them exactly. Call under `jax.enable_x64(True)`.
    """
    order = stable_argsort(descending_code(keys[:, objective]))
    others = [heights[order, m] for m in range(heights.shape[1]) if m != objective]
    if not others:
        gains = (jnp.arange(len(heights)) == 0).astype(heights.dtype)
    elif len(others) == 1:
        covered = jnp.concatenate([jnp.zeros(1, heights.dtype), lax.cummax(others[0])[:-1]])
        gains = jnp.maximum(others[0] - covered, 0)
    else:
        gains = staircase_gains(*others)
    return order, gains


@jax.custom_vjp
def _volume(heights: jax.Array, keys: jax.Array) -> jax.Array:
    """Float64 volume of points at `heights` above the reference, ordered by int32 `keys`."""
    return _volume_and_gains(heights, keys, 1)[0]


def _volume_forward(heights: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _volume_and_gains(heights, keys, heights.shape[1])


def _volume_backward(gains: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
    with jax.enable_x64(True):
        return cotangent * gains, None


def _volume_and_gains(
    heights: jax.Array, keys: jax.Array, num_sweeps: int
) -> tuple[jax.Array, jax.Array]:
    """The volume and the gains [num_points, num_sweeps] along the first objectives."""
    with jax.enable_x64(True):
        heights = jnp.where((heights > 0).all(axis=1, keepdims=True), heights, 0)
        gains = jnp.zeros((len(heights), num_sweeps), jnp.float64)
        for objective in range(num_sweeps):
            order, gained = _swept_gains(heights, keys, objective)
            gains = gains.at[order, objective].set(gained, unique_indices=True)
        return (gains[:, 0] * heights[:, 0]).sum(), gains


_volume.defvjp(_volume_forward, _volume_backward)
