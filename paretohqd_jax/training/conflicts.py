"""Gradients of objectives that pull apart, combined into one step (RACO, arXiv 2602.02495).

The weighted gradient g_0 = sum_m w_m g_m may raise the loss of an objective that the others
outvote. Conflict-averse descent adds a step of length c |g_0| in the direction of that convex
combination of the gradients which the weighted gradient serves worst; RACO clips the combination by
the weights, so that no objective is helped beyond what its weight asks for.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.config.raco import MAX_OBJECTIVES
from paretohqd_jax.errors import InputError

# Of the longest gradient's square, added to the diagonal: gradients may be parallel.
DAMPING = 1e-6


def raco_coefficients(gram: jax.Array, weights: jax.Array, conflict: float) -> jax.Array:
    """Coefficients of the objectives' gradients in RACO's step, float32 `[num_objectives]`.

    Args:
      gram: inner products of the gradients, `[num_objectives, num_objectives]`.
      weights: the preference w, on the simplex.
      conflict: c in [0, 1); 0 gives the weights themselves, and so do gradients that cancel.
    """
    length = jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0.0))
    worst = least_served(gram, gram @ weights, conflict * length)
    clipped = jnp.minimum(worst, weights)
    norm = jnp.sqrt(jnp.maximum(clipped @ gram @ clipped, 0.0))
    # Gradients that cancel, as those of labels that all disagree do, leave no direction but noise.
    noise = jnp.sqrt(DAMPING * jnp.max(jnp.diag(gram)))
    added = jnp.where(norm > noise, conflict * length / jnp.maximum(norm, noise), 0.0)
    return weights + jnp.where(added > 0, added * clipped, 0.0)


def least_served(gram: jax.Array, slopes: jax.Array, radius: jax.Array) -> jax.Array:
    """The point p of the simplex that minimises b.p + s sqrt(p.H p), float32 `[num_objectives]`.

    The function is convex, so its minimum lies inside one face of the simplex, a corner at the
    least, and is the stationary point there: with H and b of that face alone, p is in proportion to
    H^-1 (nu 1 - b), and the multiplier nu solves a quadratic equation. All faces are solved at
    once, and the best point that has no negative share is taken.

    Args:
      gram: H, positive semi-definite, `[num_objectives, num_objectives]`.
      slopes: b, `[num_objectives]`.
      radius: s >= 0.

    Raises:
      InputError: of more than `MAX_OBJECTIVES` objectives.
    """
    num_objectives = gram.shape[0]
    if num_objectives > MAX_OBJECTIVES:
        raise InputError(f"{num_objectives} objectives; RACO takes up to {MAX_OBJECTIVES}")
    scale = jnp.maximum(jnp.max(jnp.diag(gram)), jnp.finfo(jnp.float32).tiny)
    gram, slopes, radius = gram / scale, slopes / scale, radius / jnp.sqrt(scale)
    faces = jnp.asarray(_faces(num_objectives))
    points = jax.vmap(lambda face: _stationary_point(gram, slopes, radius, face))(faces)
    points = jnp.concatenate([points, jnp.eye(num_objectives)])
    values = points @ slopes + radius * jnp.sqrt(
        jnp.maximum(jnp.einsum("im,mn,in->i", points, gram, points), 0.0)
    )
    feasible = jnp.all(points >= 0, axis=1) & jnp.isfinite(values)
    return points[jnp.argmin(jnp.where(feasible, values, jnp.inf))]


def _faces(num_objectives: int) -> np.ndarray:
    """Which corners each face of more than one has, bool `[num_faces, num_objectives]`."""
    faces = np.array(list(itertools.product([False, True], repeat=num_objectives)))
    return faces[faces.sum(axis=1) > 1]


def _stationary_point(
    gram: jax.Array, slopes: jax.Array, radius: jax.Array, face: jax.Array
) -> jax.Array:
    """Where the function is stationary on the plane of a face; not a number if it is nowhere."""
    inside = jnp.where(face[:, None] & face[None, :], gram, 0.0)
    system = inside + jnp.diag(jnp.where(face, DAMPING, 1.0))
    ones = face.astype(gram.dtype)
    slopes = jnp.where(face, slopes, 0.0)
    solved = jnp.linalg.solve(system, jnp.stack([ones, slopes], axis=1))
    a, b, c = ones @ solved[:, 0], slopes @ solved[:, 0], slopes @ solved[:, 1]
    multiplier = (b + jnp.sqrt(b**2 - a * (c - radius**2))) / a
    direction = multiplier * solved[:, 0] - solved[:, 1]
    return direction / jnp.sum(direction)
