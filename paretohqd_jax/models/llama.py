"""The Llama decoder (Touvron et al., arXiv 2302.13971) and its kin in flax.linen.

Mistral (arXiv 2310.06825), Qwen2 (2407.10671), Qwen3 (2505.09388), Gemma 2 (2408.00118) and 3
(2503.19786) are the same module: fields of the configuration add windows, biases, norms and so on.

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

from paretohqd_jax.models.attention import Seen
from paretohqd_jax.models.cache import Cache, KeysValues
from paretohqd_jax.models.decoder_layer import Layer, neutral_norm, rms_norm
from paretohqd_jax.models.layers import are_apart, layer_of
from paretohqd_jax.models.llama_config import REMAT_POLICIES, LlamaConfig
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.rope import rope_frequencies
from paretohqd_jax.models.rope_scaling import RopeScaling


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
        angles = self._angles(positions)

        shape = (config.vocab_size, config.hidden_size)
        embedding = self.param("embed_tokens", nn.initializers.normal(0.02), shape, config.dtype)
        if not config.tie_word_embeddings:
            self.param("lm_head", nn.initializers.normal(0.02), shape, config.dtype)
        # Whole vectors are looked up: their parts would have to be put together for every token.
        hidden = constrain(embedding, ("vocab", None))[tokens]
        hidden = constrain(hidden, ("batch", None, "residual"))
        if config.scaled_embedding:
            hidden = hidden * jnp.asarray(config.hidden_size**0.5, config.dtype)
        context = (angles, token_mask, positions, seen, adapter_ids)
        if cache is not None or any(map(are_apart, self.variables.values())):
            hidden, written = self._one_by_one(deterministic, hidden, cache, *context)
        else:
            layers = self._scanned(deterministic)
            kinds = config.layer_windows(), config.layer_rotations()
            hidden, written = layers(hidden, None, *kinds, *context)
        weight = self.param("norm", neutral_norm(config), (config.hidden_size,), config.dtype)
        return rms_norm(hidden, weight, config), written

    def _angles(self, positions: jax.Array) -> jax.Array:
        """Radians [B, T, h / 2] that queries and keys at `positions` [B, T] are turned by.

        Where some layers have a base of their own [2, B, T, h / 2], theirs last.
        """
        config = self.config

        def angles(theta: float, scaling: RopeScaling | None) -> jax.Array:
            frequencies = rope_frequencies(config.head_dim, theta, scaling, positions)
            return jnp.maximum(positions, 0)[..., None] * frequencies

        everywhere = angles(config.rope_theta, config.rope_scaling)
        if config.local_rope_theta is None:
            return everywhere
        return jnp.stack([everywhere, angles(config.local_rope_theta, None)])

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
            in_axes=(0, 0, 0, *[nn.broadcast] * 5),
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
        kinds = self.config.layer_windows(), self.config.layer_rotations()
        written = []
        for number in range(self.config.num_layers):
            own = {name: layer_of(tree, number) for name, tree in adapted.items()}
            cached = None if cache is None else (cache.keys[number], cache.values[number])
            kind = (None if values is None else values[number] for values in kinds)
            hidden, new = layer.apply(own, hidden, cached, *kind, *context)
            written.append(new)
        keys, values = zip(*written, strict=True)
        return hidden, (keys, values)


def output_embedding(params: dict[str, Any], config: LlamaConfig) -> jax.Array:
    """The matrix [V, D] whose product with a hidden state gives the logits."""
    matrix = params["embed_tokens"] if config.tie_word_embeddings else params["lm_head"]
    return constrain(matrix, ("vocab", None))


def compute_logits(
    hidden: jax.Array, embedding: jax.Array, soft_cap: float | None = None
) -> jax.Array:
    """Logits [..., V] in float32 of hidden states [..., D] and an output embedding [V, D]."""
    logits = jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)
    return logits if soft_cap is None else soft_cap * jnp.tanh(logits / soft_cap)


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
    norms = dict.fromkeys(config.norm_sizes(), ("layers", "norm"))
    names = {
        "embed_tokens": ("vocab", "embed"),
        "layers": {**kernels, **norms},
        "norm": ("norm",),
    }
    if not config.tie_word_embeddings:
        names["lm_head"] = ("vocab", "embed")
    return names


def logical_sizes(config: LlamaConfig) -> dict[str, int]:
    """How often each logical axis can be cut; heads are never cut through."""
    return {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
        "residual": config.hidden_size,
    }


def _init(key: jax.Array, config: LlamaConfig) -> dict[str, Any]:
    with nn.logical_axis_rules(()):  # a single token is too little to cut
        return Llama(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
