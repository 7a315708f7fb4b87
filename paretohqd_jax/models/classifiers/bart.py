"""BART (Lewis et al., arXiv 1910.13461) as a classifier.

The text goes into the encoder and, shifted by one, into the decoder, whose last token is read.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.models.classifiers.checkpoint import (
    Tensor,
    linear,
    norm,
    read_activation,
    read_labels,
)
from paretohqd_jax.models.classifiers.layers import (
    ACTIVATIONS,
    attend,
    head,
    last_real,
    layer_norm,
    positions,
    project,
)
from paretohqd_jax.models.fields import need_integer

# Repetitions of the shared embedding, and what only generation needs.
IGNORED = r"(encoder|decoder)\.embed_tokens\.weight$|final_logits_bias$|^lm_head\."
POSITION_OFFSET = 2  # the first rows of the table of positions belong to no position
NORM_EPS = 1e-5
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


@dataclasses.dataclass(frozen=True)
class BartConfig:
    """Sizes and constants; pairs are (encoder, decoder)."""

    vocab_size: int
    hidden_size: int
    intermediate_sizes: tuple[int, int]
    num_layers: tuple[int, int]
    num_heads: tuple[int, int]
    max_tokens: int
    activation: str
    scale_embedding: bool
    start_token_id: int
    labels: tuple[str, ...]


def read_config(path: Path, values: dict[str, Any]) -> BartConfig:
    """The configuration in a config.json."""

    def pair(field: str) -> tuple[int, int]:
        encoder, decoder = (
            need_integer(path, values, f"{part}_{field}") for part in ("encoder", "decoder")
        )
        return encoder, decoder

    return BartConfig(
        vocab_size=need_integer(path, values, "vocab_size"),
        hidden_size=need_integer(path, values, "d_model"),
        intermediate_sizes=pair("ffn_dim"),
        num_layers=pair("layers"),
        num_heads=pair("attention_heads"),
        max_tokens=need_integer(path, values, "max_position_embeddings"),
        activation=read_activation(path, values.get("activation_function", "gelu")),
        scale_embedding=bool(values.get("scale_embedding", False)),
        start_token_id=values.get("decoder_start_token_id", 2),
        labels=read_labels(values, default=3),
    )


def table(config: BartConfig) -> dict[str, Any]:
    """Where the params lie in a checkpoint."""
    size = config.hidden_size

    def attention(name: str, num_layers: int) -> dict[str, Any]:
        maps = {
            ours: linear(f"{name}.{theirs}", size, size, num_layers)
            for ours, theirs in ATTENTION.items()
        }
        return {**maps, "norm": norm(f"{name}_layer_norm", size, num_layers)}

    def half(part: str, num_layers: int, wide: int) -> dict[str, Any]:
        name = f"model.{part}.layers.{{}}"
        layers = {
            "attention": attention(f"{name}.self_attn", num_layers),
            "mlp_input": linear(f"{name}.fc1", size, wide, num_layers),
            "mlp_output": linear(f"{name}.fc2", wide, size, num_layers),
            "mlp_norm": norm(f"{name}.final_layer_norm", size, num_layers),
        }
        if part == "decoder":
            layers["cross_attention"] = attention(f"{name}.encoder_attn", num_layers)
        num_positions = config.max_tokens + POSITION_OFFSET
        return {
            "position_embedding": Tensor(
                f"model.{part}.embed_positions.weight", (num_positions, size)
            ),
            "embedding_norm": norm(f"model.{part}.layernorm_embedding", size),
            "layers": layers,
        }

    return {
        "token_embedding": Tensor("model.shared.weight", (config.vocab_size, size)),
        "encoder": half("encoder", config.num_layers[0], config.intermediate_sizes[0]),
        "decoder": half("decoder", config.num_layers[1], config.intermediate_sizes[1]),
        "pooler": linear("classification_head.dense", size, size),
        "score": linear("classification_head.out_proj", size, len(config.labels)),
    }


def compute_logits(
    params: dict[str, Any], tokens: jax.Array, mask: jax.Array, *, config: BartConfig
) -> jax.Array:
    """Logits float32 [B, labels] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    Padding may be on either side. Texts must end in the end token, as the tokenizer writes them:
    the reference reads the last of these, and here the last real token is read.
    """
    encoder_heads, decoder_heads = config.num_heads
    activation = ACTIVATIONS[config.activation]

    def embed(tokens: jax.Array, params_of_half: dict[str, Any]) -> jax.Array:
        vectors = params["token_embedding"][tokens]
        if config.scale_embedding:
            vectors = vectors * config.hidden_size**0.5
        places = params_of_half["position_embedding"][positions(mask) + POSITION_OFFSET]
        return layer_norm(vectors + places, params_of_half["embedding_norm"], NORM_EPS)

    def attention(
        hidden: jax.Array, source: jax.Array, seen: jax.Array, params: Any, num_heads: int
    ) -> jax.Array:
        query = project(hidden, params["query"])
        keys, values = project(source, params["key"]), project(source, params["value"])
        attended = project(attend(query, keys, values, seen, num_heads), params["output"])
        return layer_norm(hidden + attended, params["norm"], NORM_EPS)

    def mlp(hidden: jax.Array, params: dict[str, Any]) -> jax.Array:
        x = project(activation(project(hidden, params["mlp_input"])), params["mlp_output"])
        return layer_norm(hidden + x, params["mlp_norm"], NORM_EPS)

    def encoder_layer(hidden: jax.Array, params: dict[str, Any]) -> tuple[jax.Array, None]:
        seen = mask[:, None]
        hidden = attention(hidden, hidden, seen, params["attention"], encoder_heads)
        return mlp(hidden, params), None

    def decoder_layer(hidden: jax.Array, params: dict[str, Any]) -> tuple[jax.Array, None]:
        seen = jnp.tri(tokens.shape[1], dtype=bool) & mask[:, None]
        hidden = attention(hidden, hidden, seen, params["attention"], decoder_heads)
        cross = params["cross_attention"]
        hidden = attention(hidden, encoded, mask[:, None], cross, decoder_heads)
        return mlp(hidden, params), None

    encoder, decoder = params["encoder"], params["decoder"]
    encoded, _ = jax.lax.scan(encoder_layer, embed(tokens, encoder), encoder["layers"])
    before = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    has_before = jnp.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    shifted = jnp.where(has_before, before, config.start_token_id)
    hidden, _ = jax.lax.scan(decoder_layer, embed(shifted, decoder), decoder["layers"])
    pooled = jnp.tanh(project(last_real(hidden, mask), params["pooler"]))
    return head(pooled, params["score"])
