"""The two-dimensional staircase that a three-dimensional sweep carries along."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from paretohqd_jax.pareto.order import read, write


def staircase_gains(widths: jax.Array, heights: jax.Array) -> jax.Array:
    """Area [num_points] that each box [0, width] x [0, height] adds to the union of those before.

    The union's outline is a staircase of corners with ascending widths and descending heights,
    kept as a sorted array of point ids between a sentinel at each end. A new box finds its place
    by binary search, walks left over the corners it covers while summing the area above them, and
    takes their place. Every corner is covered once, so the work is O(N log N) plus moving the
    corners right of the place, at most the staircase's length per point: about sqrt(N) on smooth
    fronts, N where the sweep sees a two-dimensional front.
    """
    num_points = jnp.int32(widths.size)
    infinity = jnp.full(1, jnp.inf, widths.dtype)
    zero = jnp.zeros(1, widths.dtype)
    widths = jnp.concatenate([widths, zero, infinity])
    heights = jnp.concatenate([heights, infinity, zero])
    corners = jnp.zeros(widths.size, jnp.int32)
    corners = corners.at[0].set(num_points).at[1].set(num_points + 1)

    def add_box(point, state):
        corners, size, gains = state
        width, height = widths[point], heights[point]

        def halve(bounds):
            low, high = bounds
            middle = (low + high) // 2
            left = widths[read(corners, middle)] < width
            return jnp.where(left, middle + 1, low), jnp.where(left, high, middle)

        right, _ = lax.while_loop(
            lambda bounds: bounds[0] < bounds[1], halve, (jnp.int32(1), size - 1)
        )
        visible = (heights[read(corners, right)] < height) & (width > 0)

        def uncovered(walk):
            index, _, _ = walk
            return visible & ((index == right) | (heights[read(corners, index)] <= height))

        def cover(walk):  # the strip above the right neighbour first, then leftwards
            index, edge, area = walk
            start = widths[read(corners, index - 1)]
            area += (edge - start) * (height - heights[read(corners, index)])
            return index - 1, start, area

        left, _, area = lax.while_loop(
            uncovered, cover, (right, width, jnp.zeros((), widths.dtype))
        )
        shift = jnp.where(visible, left + 2 - right, 0)

        def move(step, corners):
            source = jnp.where(shift > 0, size - 1 - step, right + step)
            return write(corners, read(corners, source), source + shift)

        corners = lax.fori_loop(jnp.int32(0), jnp.where(shift == 0, 0, size - right), move, corners)
        place = jnp.where(visible, left + 1, num_points + 1)  # the last slot is free until the end
        corners = write(corners, jnp.where(visible, point, num_points + 1), place)
        return corners, size + shift, write(gains, area, point)

    state = (corners, jnp.int32(2), jnp.zeros(widths.size - 2, widths.dtype))
    return lax.fori_loop(jnp.int32(0), num_points, add_box, state)[2]
