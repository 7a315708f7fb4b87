"""What the classifiers' layers are made of (shapes as in `llama`).

A linear map is {"kernel": [in, out], "bias": [out]}, a norm {"scale": [D], "bias": [D]}.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.models.attention import attention

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def project(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """x [..., in] through a linear map -> [..., out], in x's dtype."""
    return x @ params["kernel"] + params["bias"]


def head(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """x [B, D] through the last linear map, with or without a bias, in float32 -> [B, labels]."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return x.astype(jnp.float32) @ params["kernel"] + params.get("bias", 0.0)


def layer_norm(x: jax.Array, params: dict[str, Any], eps: float) -> jax.Array:
    """Layer norm over the last axis, computed in float32, in x's dtype."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return normalised.astype(x.dtype) * params["scale"] + params["bias"]


def attend(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, num_heads: int
) -> jax.Array:
    """Multi-head attention of query [B, T, D] to keys and values [B, S, D] -> [B, T, D].

    `mask` is bool and broadcasts to [B, T, S].
    """

    def heads(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], num_heads, -1)

    num_rows, num_tokens, _ = query.shape
    mask = jnp.broadcast_to(mask, (num_rows, num_tokens, keys.shape[1]))
    keys, values = heads(keys).swapaxes(1, 2), heads(values).swapaxes(1, 2)
    return attention(heads(query), keys, values, mask).reshape(query.shape)


def positions(mask: jax.Array) -> jax.Array:
    """How many real tokens stand before each, int32 [B, T]; 0 in padding on the left."""
    return jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)


def first_real(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The vectors [B, D] of the rows' first real tokens."""
    return hidden[jnp.arange(hidden.shape[0]), jnp.argmax(mask, axis=1)]


def without_end(tokens: jax.Array, mask: jax.Array, pad_token_id: int | None) -> jax.Array:
    """The mask bool [B, T] without the pad tokens that a text itself ends in.

    transformers knows padding by its id: where a checkpoint's pad token is its end token, it reads
    the token before the end, and such models were trained so. For causal models alone.
    """
    if pad_token_id is None:
        return mask
    others = (mask & (tokens != pad_token_id)).astype(jnp.int32)
    return mask & (jax.lax.cummax(others, axis=1, reverse=True) > 0)


def last_real(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The vectors [B, D] of the rows' last real tokens, whatever id stands in the padding."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return hidden[jnp.arange(hidden.shape[0]), last]
