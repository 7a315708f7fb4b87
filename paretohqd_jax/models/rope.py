"""Rotary positions (Su et al., arXiv 2104.09864), stretched or not (shapes as in `llama`)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from paretohqd_jax.models.rope_scaling import Dynamic, Linear, Llama3, LongRope, RopeScaling, Yarn


def rope_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, positions: jax.Array
) -> jax.Array:
    """Radians per position of each rotated pair, float32 [h / 2].

    `Dynamic` and `LongRope` depend on how many tokens a row has, and `positions` [B, T] say so: of
    these [B, 1, h / 2], as transformers computes them for a row alone.
    """
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    if isinstance(scaling, Dynamic):
        lengths = positions[:, -1:, None] + 1
        stretch = jnp.maximum(lengths / scaling.max_position_embeddings, 1.0)
        growth = scaling.factor * stretch - (scaling.factor - 1)
        return (theta * growth ** (head_dim / (head_dim - 2))) ** -exponents
    frequencies = theta**-exponents
    if isinstance(scaling, Linear):
        return frequencies / scaling.factor
    if isinstance(scaling, Llama3):
        # Keep the fast pairs, slow the slow ones by `factor`, blend in between, by the number of
        # turns a pair makes over the original context.
        turns = scaling.original_max_position_embeddings * frequencies / (2 * jnp.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequencies * (keep + (1.0 - keep) / scaling.factor)
    if isinstance(scaling, Yarn):
        keep = 1.0 - _yarn_ramp(head_dim, theta, scaling)
        return frequencies * (keep + (1.0 - keep) / scaling.factor)
    if isinstance(scaling, LongRope):
        is_long = positions[:, -1:, None] >= scaling.original_max_position_embeddings
        factors = jnp.array(scaling.long_factor), jnp.array(scaling.short_factor)
        return frequencies / jnp.where(is_long, *factors)
    return frequencies


def _yarn_ramp(head_dim: int, theta: float, scaling: Yarn) -> jax.Array:
    """From 0 at the pairs that turn `beta_fast` times over the original context or more, to 1 at
    those that turn `beta_slow` times or less, straight in the pair's number; float32 [h / 2]."""

    def pair_that_turns(times: float) -> float:
        wavelength = scaling.original_max_position_embeddings / (times * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(theta))

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001
    return jnp.clip((jnp.arange(head_dim // 2) - first) / width, 0.0, 1.0)


def rope(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates x [B, T, heads, h] by angles [B, T, h / 2]; pair i is (x_i, x_{i + h/2})."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
