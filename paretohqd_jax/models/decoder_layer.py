"""One layer of the decoder in `llama`, which has the alphabet for shapes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.attention import (
    Seen,
    attention,
    cudnn_attention,
    splash_attention,
    within,
)
from paretohqd_jax.models.cache import KeysValues, write_token
from paretohqd_jax.models.llama_config import ACTIVATIONS, LlamaConfig
from paretohqd_jax.models.lora import LoraConfig, low_rank_update
from paretohqd_jax.models.rope import rope


def rms_norm(x: jax.Array, weight: jax.Array, config: LlamaConfig) -> jax.Array:
    """Root-mean-square norm over the last axis, computed in float32, in x's dtype."""
    x32, eps = x.astype(jnp.float32), config.rms_norm_eps
    normalised = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    if config.zero_centred_norms:
        return (normalised * (1.0 + weight.astype(jnp.float32))).astype(x.dtype)
    return weight * normalised.astype(x.dtype)


def neutral_norm(config: LlamaConfig) -> nn.initializers.Initializer:
    """Makes weights with which a norm multiplies by 1."""
    return nn.initializers.zeros if config.zero_centred_norms else nn.initializers.ones


class Projection(nn.Module):
    """x @ kernel (+ bias), and where adapted + (alpha / r) dropout(x) @ a @ b."""

    shape: tuple[int, int]
    biased: bool
    lora: LoraConfig | None
    dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, deterministic: bool, adapter_ids: jax.Array | None = None
    ) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.normal(0.02), self.shape, self.dtype)
        y = x @ kernel
        if self.biased:
            y = y + self.param("bias", nn.initializers.zeros, self.shape[1:], self.dtype)
        if self.lora is None:
            return y
        a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
        if a is None or b is None:
            raise ValueError(f"no adapter given for {self.name}: pass it as the collection 'lora'")
        if not deterministic and self.lora.dropout > 0:
            if not self.has_rng("dropout"):
                raise ValueError("adapter dropout is on and no key given: rngs={'dropout': key}")
            x = nn.Dropout(self.lora.dropout, deterministic=False)(x)
        return y + self.lora.scale * low_rank_update(x, a, b, adapter_ids)


class Layer(nn.Module):
    """One decoder layer, written as the body of a scan over layers or a loop."""

    config: LlamaConfig
    lora: LoraConfig | None
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        cached: KeysValues | None,
        window: jax.Array | None,
        rotation: jax.Array | None,
        angles: jax.Array,
        token_mask: jax.Array,
        positions: jax.Array,
        seen: Seen,
        adapter_ids: jax.Array | None,
    ) -> tuple[jax.Array, KeysValues]:
        config = self.config
        num_rows, num_tokens, _ = hidden.shape
        scale, soft_cap = config.attention_scale, config.attention_soft_cap

        def norm(name: str, x: jax.Array) -> jax.Array:
            weight = self.param(name, neutral_norm(config), x.shape[-1:], config.dtype)
            return rms_norm(x, weight, config)

        def project(name: str, x: jax.Array) -> jax.Array:
            lora = self.lora if self.lora is not None and name in self.lora.targets else None
            shape = config.projection_shapes()[name]
            biased = name in config.biased
            projection = Projection(shape, biased, lora, config.dtype, name=name)
            return projection(x, self.deterministic, adapter_ids)

        def heads(name: str, x: jax.Array) -> jax.Array:
            return project(name, x).reshape(num_rows, num_tokens, -1, config.head_dim)

        if rotation is not None:
            angles = angles[rotation]
        x = norm("input_layernorm", hidden)
        query, keys = heads("q_proj", x), heads("k_proj", x)
        if config.qk_norm:
            query, keys = norm("q_norm", query), norm("k_norm", keys)
        query = rope(query, angles)
        keys = rope(keys, angles).swapaxes(1, 2)  # [B, K, T, h]
        values = heads("v_proj", x).swapaxes(1, 2)
        query = constrain(query, ("batch", None, "heads", None))
        keys = constrain(keys, ("batch", "kv_heads", None, None))
        values = constrain(values, ("batch", "kv_heads", None, None))
        if cached is not None:
            # Written before anything is read: a cache as it was need not be kept.
            keys, values = (
                write_token(old, new, positions[:, 0])
                for old, new in zip(cached, (keys, values), strict=True)
            )
            mask = within(window, seen, positions)
            attended = attention(query, keys, values, mask, scale, soft_cap)
        elif config.attention == "cudnn":
            attended = cudnn_attention(query, keys, values, config.sliding_window, scale)
        elif config.attention == "splash":
            attended = splash_attention(
                query, keys, values, token_mask, config.sliding_window, scale
            )
        else:
            mask = within(window, seen, positions)
            attended = attention(query, keys, values, mask, scale, soft_cap)
        attended = project("o_proj", attended.reshape(num_rows, num_tokens, -1))
        if config.norms_after:
            attended = norm("post_attention_layernorm", attended)
        hidden = constrain(hidden + attended, ("batch", None, "residual"))

        before = "pre_feedforward_layernorm" if config.norms_after else "post_attention_layernorm"
        x = norm(before, hidden)
        gated = ACTIVATIONS[config.activation](project("gate_proj", x)) * project("up_proj", x)
        gated = constrain(gated, ("batch", None, "mlp"))
        fed_forward = project("down_proj", gated)
        if config.norms_after:
            fed_forward = norm("post_feedforward_layernorm", fed_forward)
        hidden = constrain(hidden + fed_forward, ("batch", None, "residual"))
        return hidden, (keys, values)
