"""Rotary positions (Su et al., arXiv 2104.09864), with Llama 3's scaling (shapes as in `llama`)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.fields import need_number


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretching of the slow rotary frequencies."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


def read_scaling(path: Path, rope: dict[str, Any], context: int) -> RopeScaling | None:
    """The scaling that RoPE parameters in the words of config.json ask for, None for none.

    `context` is what the model reads, the original context where the parameters name none. Raises
    InputError, naming the file, for a scaling that is not served or not wholly described.
    """
    kind, older_word, factor = (rope.get(name) for name in ("rope_type", "type", "factor"))
    if older_word not in (None, kind):
        raise InputError(f"{path}: RoPE has rope_type {kind!r} and type {older_word!r}; keep one")
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise InputError(f"{path}: a partial_rotary_factor is not supported")
    if kind in (None, "default") and factor not in (None, 1.0):
        raise InputError(
            f"{path}: RoPE has a scaling factor of {factor!r} but rope_type {kind!r}; give the "
            "rope_type that the factor is for, or take the factor out"
        )
    if kind in (None, "default") or (kind == "linear" and factor == 1.0):
        return None
    if kind != "llama3":
        raise InputError(
            f"{path}: RoPE scaling {kind!r} (factor {factor!r}) is not supported; only 'llama3' is"
        )
    need = functools.partial(need_number, path, rope)
    scaling = RopeScaling(
        factor=need("factor"),
        low_freq_factor=need("low_freq_factor"),
        high_freq_factor=need("high_freq_factor"),
        original_max_position_embeddings=int(need("original_max_position_embeddings", context)),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise InputError(
            f"{path}: RoPE has high_freq_factor {scaling.high_freq_factor}, which must be above "
            f"low_freq_factor {scaling.low_freq_factor}"
        )
    return scaling


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> jax.Array:
    """Radians per position of each rotated pair, float32 [h / 2]."""
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies = theta**-exponents
    if scaling is None:
        return frequencies
    # Llama 3: keep the fast pairs, slow the slow ones by `factor`, blend in between, by the number
    # of turns a pair makes over the original context.
    turns = scaling.original_max_position_embeddings * frequencies / (2 * jnp.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = jnp.clip(keep, 0.0, 1.0)
    return frequencies * (keep + (1.0 - keep) / scaling.factor)


def rope(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates x [B, T, heads, h] by angles [B, T, h / 2]; pair i is (x_i, x_{i + h/2})."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
