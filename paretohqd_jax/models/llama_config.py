"""What distinguishes one Llama, and one of its kin, from another."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.attention import IMPLEMENTATIONS
from paretohqd_jax.models.rope_scaling import LongRope, RopeScaling, Yarn, check_scaling

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}
UNLIMITED = int(jnp.iinfo(jnp.int32).max)  # the window of a layer without one
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants. `dtype` is that of weights and activations; `remat` trades memory for
    time in the backward pass: "none", "dots" (keep matmul outputs) or "full" (keep layer inputs).
    `attention` is "xla", "cudnn" (padding on the right only) or "splash", see `attention`; a call
    with a cache uses "xla" whatever it says.

    `biased` names the projections with a bias; `qk_norm` normalises every query and key head before
    its rotation. A token sees itself and the `sliding_window` - 1 real tokens before it, in
    `unwindowed_layers` all before it. Layers with a window rotate from `local_rope_theta`, without
    scaling, where it is given.

    What Gemma does otherwise: queries are divided by the root of `query_pre_attn_scalar`, not of
    `head_dim`; embeddings are multiplied by that of `hidden_size`; norms multiply by 1 + their
    weight, in float32, and follow attention and feed-forward too. Gemma 2 keeps scores of attention
    and logits between two soft caps.

    `backbone` is where transformers keeps the layers, for names of adapters.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    biased: tuple[str, ...] = ()
    qk_norm: bool = False
    sliding_window: int | None = None
    unwindowed_layers: tuple[int, ...] = ()
    local_rope_theta: float | None = None
    activation: str = "silu"
    query_pre_attn_scalar: int | None = None
    scaled_embedding: bool = False
    zero_centred_norms: bool = False
    norms_after: bool = False
    attention_soft_cap: float | None = None
    logit_soft_cap: float | None = None
    backbone: str = "model"
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{self.num_heads} attention heads cannot share {self.num_kv_heads} key/value"
                " heads: the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}: rotary positions need an even number")
        check_scaling(self.rope_scaling, self.head_dim, self.rope_theta)
        if self.sliding_window is not None and not 1 <= self.sliding_window <= UNLIMITED:
            raise InputError(
                f"sliding_window is {self.sliding_window}: it must be from 1 to {UNLIMITED}"
            )
        if self.unwindowed_layers and self.attention != "xla":
            raise InputError(
                f"config.model.attention={self.attention!r} does not serve models with a sliding "
                "window in some of their layers only; use 'xla'"
            )
        if self.attention_soft_cap is not None and self.attention != "xla":
            raise InputError(
                f"config.model.attention={self.attention!r} does not serve models with a soft cap "
                "on scores; use 'xla'"
            )
        if self.local_rope_theta is not None and isinstance(self.rope_scaling, (Yarn, LongRope)):
            raise InputError(
                "RoPE scaling 'yarn' or 'longrope' is not supported in models whose layers with a "
                "window have a RoPE base of their own"
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype is {self.dtype!r}: choose float32 or bfloat16")
        if self.remat not in ("none", *REMAT_POLICIES):
            raise InputError(f"remat is {self.remat!r}: choose none, dots or full")
        if self.attention not in IMPLEMENTATIONS:
            raise InputError(
                f"attention is {self.attention!r}: choose from {', '.join(IMPLEMENTATIONS)}"
            )

    @property
    def attention_scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        scale = (self.query_pre_attn_scalar or self.head_dim) ** -0.5
        if isinstance(self.rope_scaling, (Yarn, LongRope)):
            scale *= self.rope_scaling.attention_factor**2  # of the query, and of the key
        return scale

    def projection_shapes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every linear projection of a layer."""
        query_size = self.num_heads * self.head_dim
        kv_size = self.num_kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden_size, query_size),
            "k_proj": (self.hidden_size, kv_size),
            "v_proj": (self.hidden_size, kv_size),
            "o_proj": (query_size, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
        }

    def projection_axes(self) -> dict[str, tuple[str, str]]:
        """Logical names of (in, out) of every linear projection of a layer."""
        return {
            "q_proj": ("embed", "heads"),
            "k_proj": ("embed", "kv_heads"),
            "v_proj": ("embed", "kv_heads"),
            "o_proj": ("heads", "embed"),
            "gate_proj": ("embed", "mlp"),
            "up_proj": ("embed", "mlp"),
            "down_proj": ("mlp", "embed"),
        }

    def norm_sizes(self) -> dict[str, int]:
        """How many weights every norm of a layer has."""
        names = ["input_layernorm", "post_attention_layernorm"]
        if self.norms_after:
            names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        of_heads = ["q_norm", "k_norm"] if self.qk_norm else []
        return dict.fromkeys(names, self.hidden_size) | dict.fromkeys(of_heads, self.head_dim)

    def layer_windows(self) -> jax.Array | None:
        """How many tokens each layer sees, int32 [L]; None where no layer has a window."""
        if self.sliding_window is None:
            return None
        windows = jnp.full(self.num_layers, self.sliding_window, jnp.int32)
        unlimited = jnp.array(self.unwindowed_layers, jnp.int32)
        return windows.at[unlimited].set(UNLIMITED)

    def layer_rotations(self) -> jax.Array | None:
        """1 for layers that rotate from `local_rope_theta`, 0 for others, int32 [L]; None if all
        rotate alike."""
        if self.local_rope_theta is None:
            return None
        unlimited = jnp.array(self.unwindowed_layers, jnp.int32)
        return jnp.ones(self.num_layers, jnp.int32).at[unlimited].set(0)


def config_at(path: Path, **fields: Any) -> LlamaConfig:
    """The configuration of a checkpoint; the file is named where fields do not fit each other."""
    try:
        return LlamaConfig(**fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
