"""The two-dimensional staircase that a three-dimensional sweep carries along."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def staircase_gains(widths: jax.Array, heights: jax.Array) -> jax.Array:
    """Area [num_points] that each box [0, width] x [0, height] adds to the union of those before.

    The union's outline is a staircase: corners with ascending widths and descending heights,
    kept sorted in two arrays between a sentinel at each end. A new box finds its place by binary
    search, walks left over the corners it covers while summing the area above them, and takes
    their place. Every corner is covered once, so the work is O(N log N) plus moving the corners
    right of the place, at most the staircase's length per point (about sqrt(N) on smooth fronts).
    """
    num_points = widths.size
    capacity = num_points + 2
    infinity = jnp.asarray(jnp.inf, heights.dtype)
    corner_widths = jnp.full(capacity, infinity).at[0].set(0)
    corner_heights = jnp.zeros(capacity, heights.dtype).at[0].set(infinity)

    def read(array, index):
        return lax.dynamic_index_in_dim(array, index, keepdims=False)

    def write(array, value, index):
        return lax.dynamic_update_index_in_dim(array, value, index, 0)

    def add_box(point, state):
        corner_widths, corner_heights, size, gains = state
        width, height = widths[point], heights[point]

        def halve(bounds):
            low, high = bounds
            middle = (low + high) // 2
            left = read(corner_widths, middle) < width
            return jnp.where(left, middle + 1, low), jnp.where(left, high, middle)

        right, _ = lax.while_loop(lambda b: b[0] < b[1], halve, (jnp.int32(1), size - 1))

        def cover(walk):
            corner, edge, area = walk
            below, start = read(corner_heights, corner), read(corner_widths, corner - 1)
            return corner - 1, start, area + (edge - start) * (height - below)

        # The strip above the right neighbour comes first, then the covered corners leftwards.
        _, edge, area = cover((right, width, jnp.zeros((), heights.dtype)))
        visible = (read(corner_heights, right) < height) & (width > 0)
        first = right - 1
        left, _, area = lax.while_loop(
            lambda walk: visible & (read(corner_heights, walk[0]) <= height),
            cover,
            (first, edge, area),
        )
        shift = jnp.where(visible, 1 - (first - left), 0)

        def move(index, arrays):
            wide, tall = arrays
            source = jnp.where(shift > 0, size - 1 - index, right + index)
            return (
                write(wide, read(wide, source), source + shift),
                write(tall, read(tall, source), source + shift),
            )

        moves = jnp.where(shift == 0, 0, size - right)
        corner_widths, corner_heights = lax.fori_loop(
            0, moves, move, (corner_widths, corner_heights)
        )
        place = jnp.where(visible, left + 1, capacity - 1)
        corner_widths = write(corner_widths, jnp.where(visible, width, infinity), place)
        corner_heights = write(corner_heights, jnp.where(visible, height, 0), place)
        gains = write(gains, jnp.where(visible, area, 0), point)
        return corner_widths, corner_heights, size + shift, gains

    state = (corner_widths, corner_heights, jnp.int32(2), jnp.zeros_like(heights))
    return lax.fori_loop(0, num_points, add_box, state)[3]
