"""Grouped-query attention: plain XLA, and kernels of single platforms; shapes as in `llama`.

All multiply the products of queries and keys by `scale`, h ** -0.5 where it is None.
`attention` serves every platform, padding on either side and any cache. `cudnn_attention` and
`splash_attention` never hold the scores [B, H, T, S]; they serve calls without a cache.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from paretohqd_jax.errors import InputError

IMPLEMENTATIONS = ("xla", "cudnn", "splash")
BLOCK = 128  # tokens: the lanes of a TPU, of which the kernel's blocks are multiples


def check_attention(implementation: str, dtype: str, head_dim: int) -> None:
    """Raises InputError if the devices of this process cannot serve `implementation`."""
    device = jax.devices()[0]
    nvidia = device.platform == "gpu" and "cuda" in device.client.platform_version
    choice = f"config.model.attention={implementation!r}"
    if implementation == "splash" and device.platform != "tpu":
        other = "'xla' or 'cudnn'" if nvidia else "'xla'"
        raise InputError(f"{choice} needs TPUs, and this is a {device.platform}; use {other}")
    if implementation == "cudnn":
        if not nvidia:
            other = "'xla' or 'splash'" if device.platform == "tpu" else "'xla'"
            raise InputError(
                f"{choice} needs NVIDIA GPUs, and this is a {device.platform}; use {other}"
            )
        if dtype != "bfloat16":
            raise InputError(
                f"{choice} does not compute in {dtype}; set config.model.dtype='bfloat16' or use "
                "'xla'"
            )
        if head_dim % 8 or head_dim > 128:
            raise InputError(
                f"{choice} serves head sizes that are multiples of 8 up to 128, and the model's "
                f"is {head_dim}; use 'xla'"
            )


class Seen(NamedTuple):
    """Which tokens of a source each query may see, before any window, and their positions."""

    mask: jax.Array  # bool [B, T, S]
    positions: jax.Array  # int32 [B, S], counting real tokens only


def within(window: jax.Array | None, seen: Seen, positions: jax.Array) -> jax.Array:
    """The mask [B, T, S] less the tokens `window` or more before the queries at `positions`."""
    if window is None:
        return seen.mask
    return seen.mask & (positions[:, :, None] - seen.positions[:, None] < window)


def attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> jax.Array:
    """Grouped-query attention of query [B, T, H, h] to keys and values [B, K, S, h].

    `mask` is bool [B, T, S]. The softmax is in float32. A query that may see nothing (padding) gets
    a meaningless but finite average. With `soft_cap` no score is beyond it, on either side.
    """
    num_rows, num_tokens, num_heads, size = query.shape
    num_kv_heads = keys.shape[1]
    scale = size**-0.5 if scale is None else scale
    # [B, K, G * T, h]: one matmul per row and key/value head.
    grouped = query.reshape(num_rows, num_tokens, num_kv_heads, -1, size) * scale
    grouped = grouped.transpose(0, 2, 3, 1, 4).reshape(num_rows, num_kv_heads, -1, size)
    scores = jnp.einsum("bkqh,bksh->bkqs", grouped, keys, preferred_element_type=jnp.float32)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    every_group = jnp.tile(mask, (1, num_heads // num_kv_heads, 1))[:, None]
    scores = jnp.where(every_group, scores, jnp.finfo(jnp.float32).min)
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    shares = (weights / jnp.sum(weights, axis=-1, keepdims=True)).astype(query.dtype)
    mixed = jnp.einsum("bkqs,bksh->bkqh", shares, values)
    mixed = mixed.reshape(num_rows, num_kv_heads, -1, num_tokens, size)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(query.shape)


def cudnn_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    window: int | None = None,
    scale: float | None = None,
) -> jax.Array:
    """cuDNN's flash attention of query [B, T, H, h] to keys and values [B, K, T, h].

    Padding must be on the right, as in training: causality hides it from every real token, so the
    kernel needs no mask. With `window` a token sees itself and the `window - 1` before it.
    """
    return jax.nn.dot_product_attention(
        query,
        keys.swapaxes(1, 2),
        values.swapaxes(1, 2),
        scale=scale,
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn",
    )


def splash_attention(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    token_mask: jax.Array,
    window: int | None = None,
    scale: float | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The TPU's splash kernel: query [B, T, H, h] to keys and values [B, K, T, h], one device each.

    GSPMD cannot split a kernel: under a mesh every device runs it on its own rows and heads, as
    the logical rules place them. `interpret` runs it without a TPU, slowly, for tests.

    Args:
      token_mask: bool [B, T], True on real tokens; padding may be on either side.
      window: with it a token sees itself and the `window - 1` before it.
    """
    local = functools.partial(_splash, window=window, scale=scale, interpret=interpret)
    if jax.sharding.get_abstract_mesh().empty:
        return local(query, keys, values, token_mask)
    queries = nn.logical_to_mesh_axes(("batch", None, "heads", None))
    sources = nn.logical_to_mesh_axes(("batch", "kv_heads", None, None))
    rows = nn.logical_to_mesh_axes(("batch", None))
    return jax.shard_map(
        local, in_specs=(queries, sources, sources, rows), out_specs=queries, check_vma=False
    )(query, keys, values, token_mask)


def _splash(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    token_mask: jax.Array,
    *,
    window: int | None,
    scale: float | None,
    interpret: bool,
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    num_tokens, num_heads, size = query.shape[1:]
    scale = size**-0.5 if scale is None else scale
    length = -(-num_tokens // BLOCK) * BLOCK
    block = max(size for size in (BLOCK, 2 * BLOCK, 4 * BLOCK) if length % size == 0)
    seen = (length, length)
    mask = splash.CausalMask(seen) if window is None else splash.LocalMask(seen, (window - 1, 0), 0)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * num_heads),
        block_sizes=splash.BlockSizes(*[block] * 8),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )

    def padded(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0), (0, 0), (0, length - num_tokens), (0, 0)])

    # A token attends within its own segment: padding is one, the real tokens are the other.
    segments = jnp.pad(token_mask.astype(jnp.int32), [(0, 0), (0, length - num_tokens)])
    scaled = padded((query * scale).swapaxes(1, 2))
    ids = splash.SegmentIds(segments, segments)
    mixed = jax.vmap(kernel)(scaled, padded(keys), padded(values), ids)
    return mixed[:, :, :num_tokens].swapaxes(1, 2)
