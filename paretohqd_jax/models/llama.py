"""The Llama decoder (Touvron et al., arXiv 2302.13971) and its kin in flax.linen.

Mistral (arXiv 2310.06825), Qwen2 (2407.10671) and Qwen3 (2505.09388) are the same module: flags of
the configuration add the sliding window, the biases and the norms of queries and keys.

One alphabet for shapes, here and wherever this model is used:
  B rows   T tokens of this call   S tokens attended to (T, or the cache's length)   D hidden size
  H query heads   K key/value heads   G = H / K   h head size   F feed-forward size
  V vocabulary   r adapter rank   L layers   N adapters

`Llama` is a pure function of its variables. The base weights are the collection `params`, one
adapter is the collection `lora`, both with [L, ...] on the leaves below "layers" or, for decoding,
with a tree for each layer (`models.layers.apart`). Several adapters run together under `jax.vmap`
over `lora` and the tokens alone, which keeps every base matmul a single one over all N * B * T
rows.
"""

from __future__ import annotations

from typing import Any

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
from paretohqd_jax.models.cache import Cache, KeysValues, write_token
from paretohqd_jax.models.layers import are_apart, layer_of
from paretohqd_jax.models.llama_config import REMAT_POLICIES, LlamaConfig
from paretohqd_jax.models.lora import LoraConfig, low_rank_update
from paretohqd_jax.models.rope import rope, rope_frequencies


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, computed in float32, in x's dtype."""
    x32 = x.astype(jnp.float32)
    normalised = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return weight * normalised.astype(x.dtype)


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
        angles: jax.Array,
        token_mask: jax.Array,
        positions: jax.Array,
        seen: Seen,
        adapter_ids: jax.Array | None,
    ) -> tuple[jax.Array, KeysValues]:
        config = self.config
        num_rows, num_tokens, _ = hidden.shape

        def norm(name: str, x: jax.Array) -> jax.Array:
            weight = self.param(name, nn.initializers.ones, x.shape[-1:], config.dtype)
            return rms_norm(x, weight, config.rms_norm_eps)

        def project(name: str, x: jax.Array) -> jax.Array:
            lora = self.lora if self.lora is not None and name in self.lora.targets else None
            shape = config.projection_shapes()[name]
            biased = name in config.biased
            projection = Projection(shape, biased, lora, config.dtype, name=name)
            return projection(x, self.deterministic, adapter_ids)

        def heads(name: str, x: jax.Array) -> jax.Array:
            return project(name, x).reshape(num_rows, num_tokens, -1, config.head_dim)

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
            attended = attention(query, keys, values, within(window, seen, positions))
        elif config.attention == "cudnn":
            attended = cudnn_attention(query, keys, values, config.sliding_window)
        elif config.attention == "splash":
            attended = splash_attention(query, keys, values, token_mask, config.sliding_window)
        else:
            attended = attention(query, keys, values, within(window, seen, positions))
        attended = project("o_proj", attended.reshape(num_rows, num_tokens, -1))
        hidden = constrain(hidden + attended, ("batch", None, None))

        x = norm("post_attention_layernorm", hidden)
        gated = jax.nn.silu(project("gate_proj", x)) * project("up_proj", x)
        gated = constrain(gated, ("batch", None, "mlp"))
        hidden = constrain(hidden + project("down_proj", gated), ("batch", None, None))
        return hidden, (keys, values)


class Llama(nn.Module):
    """Tokens to hidden states; the logits are left to the caller (see `output_embedding`)."""

    config: LlamaConfig
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        token_mask: jax.Array | None = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        adapter_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """Hidden states [B, T, D] after the final norm; keys and values [B, K, S, h] by layer.

        `tokens` is int32 [B, T]; `token_mask` bool [B, T] is True on real tokens, padding may be on
        either side and is never attended to; positions count real tokens only. The keys and values
        are for `begin_rows` and cost nothing where unused. With a cache each row has one token,
        which follows those in it, and keys and values are the cache's with it, for `extend_rows`.
        Without `deterministic` the adapters' dropout is on and needs `rngs={"dropout": key}`. With
        `adapter_ids` int32 [B] the collection `lora` holds several adapters side by side, and each
        row has the one of its number.
        """
        config = self.config
        if token_mask is None:
            token_mask = jnp.ones(tokens.shape, bool)
        positions = jnp.cumsum(token_mask, axis=1) - 1
        if cache is None:
            seen = Seen(jnp.tri(tokens.shape[1], dtype=bool) & token_mask[:, None], positions)
        else:
            positions = positions + cache.lengths[:, None]
            places = jnp.arange(cache.room)[None]
            seen = Seen((places <= positions)[:, None], places)
        frequencies = rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        angles = jnp.maximum(positions, 0)[..., None] * frequencies  # [B, T, h / 2]

        shape = (config.vocab_size, config.hidden_size)
        embedding = self.param("embed_tokens", nn.initializers.normal(0.02), shape, config.dtype)
        if not config.tie_word_embeddings:
            self.param("lm_head", nn.initializers.normal(0.02), shape, config.dtype)
        # Whole vectors are looked up: their parts would have to be put together for every token.
        hidden = constrain(embedding, ("vocab", None))[tokens]
        hidden = constrain(hidden, ("batch", None, None))
        context = (angles, token_mask, positions, seen, adapter_ids)
        if cache is not None or any(map(are_apart, self.variables.values())):
            hidden, written = self._one_by_one(deterministic, hidden, cache, *context)
        else:
            layers = self._scanned(deterministic)
            hidden, written = layers(hidden, None, config.layer_windows(), *context)
        weight = self.param("norm", nn.initializers.ones, (config.hidden_size,), config.dtype)
        return rms_norm(hidden, weight, config.rms_norm_eps), written

    def _scanned(self, deterministic: bool) -> nn.Module:
        layer = Layer
        if self.config.remat != "none":
            # The scan is barrier enough; prevent_cse would only hinder the compiler.
            policy = REMAT_POLICIES[self.config.remat]
            layer = nn.remat(Layer, policy=policy, prevent_cse=False)
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, *[nn.broadcast] * 5),
            length=self.config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return scanned(self.config, self.lora, deterministic, name="layers")

    def _one_by_one(
        self, deterministic: bool, hidden: jax.Array, cache: Cache | None, *context: Any
    ) -> tuple[jax.Array, KeysValues]:
        """The layers in a loop that is unrolled, each with its own part of the cache."""
        layer = Layer(self.config, self.lora, deterministic, parent=None)
        adapted = {name: tree for name, tree in self.variables.items() if "layers" in tree}
        windows = self.config.layer_windows()
        written = []
        for number in range(self.config.num_layers):
            own = {name: layer_of(tree, number) for name, tree in adapted.items()}
            cached = None if cache is None else (cache.keys[number], cache.values[number])
            window = None if windows is None else windows[number]
            hidden, new = layer.apply(own, hidden, cached, window, *context)
            written.append(new)
        keys, values = zip(*written, strict=True)
        return hidden, (keys, values)


def output_embedding(params: dict[str, Any], config: LlamaConfig) -> jax.Array:
    """The matrix [V, D] whose product with a hidden state gives the logits."""
    matrix = params["embed_tokens"] if config.tie_word_embeddings else params["lm_head"]
    return constrain(matrix, ("vocab", None))


def compute_logits(hidden: jax.Array, embedding: jax.Array) -> jax.Array:
    """Logits [..., V] in float32 of hidden states [..., D] and an output embedding [V, D]."""
    return jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)


def init_params(key: jax.Array, config: LlamaConfig, shardings: Any = None) -> dict[str, Any]:
    """Random weights, normal with standard deviation 0.02, for toy models and tests.

    With `shardings`, a tree like `param_shapes`, each device makes its own part alone; the values
    are the same.
    """
    init = jax.jit(lambda key: _init(key, config), out_shardings=shardings)
    return init(key)


def param_shapes(config: LlamaConfig) -> dict[str, Any]:
    """The weights as jax.ShapeDtypeStruct."""
    return jax.eval_shape(lambda: _init(jax.random.key(0), config))


def logical_axes(config: LlamaConfig) -> dict[str, Any]:
    """Like `param_shapes`, with the logical name of each axis (see `training.mesh`)."""
    kernels = {
        name: {"kernel": ("layers", *axes)} for name, axes in config.projection_axes().items()
    }
    for name in config.biased:
        kernels[name]["bias"] = ("layers", config.projection_axes()[name][1])
    norm_names = ["input_layernorm", "post_attention_layernorm"]
    if config.qk_norm:
        norm_names += ["q_norm", "k_norm"]
    norms = dict.fromkeys(norm_names, ("layers", "norm"))
    names = {
        "embed_tokens": ("vocab", "embed"),
        "layers": {**kernels, **norms},
        "norm": ("norm",),
    }
    if not config.tie_word_embeddings:
        names["lm_head"] = ("vocab", "embed")
    return names


def logical_sizes(config: LlamaConfig) -> dict[str, int]:
    """How often each logical axis of the weights can be cut; heads are never cut through."""
    return {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
    }


def _init(key: jax.Array, config: LlamaConfig) -> dict[str, Any]:
    with nn.logical_axis_rules(()):  # a single token is too little to cut
        return Llama(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
