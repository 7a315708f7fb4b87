"""GPT-2 (Radford et al., 2019) with scores read off the last token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.classifiers.checkpoint import (
    Tensor,
    linear,
    norm,
    read_activation,
    read_labels,
    read_pad_token,
)
from paretohqd_jax.models.classifiers.layers import (
    ACTIVATIONS,
    attend,
    head,
    last_real,
    layer_norm,
    positions,
    project,
    without_end,
)
from paretohqd_jax.models.fields import need_integer

# Tables that follow from the configuration, kept by old checkpoints.
IGNORED = r"\.attn\.(masked_)?bias$"


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Sizes and constants."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_tokens: int
    activation: str
    norm_eps: float
    labels: tuple[str, ...]
    pad_token_id: int | None = None


def read_config(path: Path, values: dict[str, Any]) -> GPT2Config:
    """The configuration in a config.json."""
    for option, plain in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if values.get(option, plain) != plain:
            raise InputError(f"{path}: {option}={values[option]} is not supported")
    hidden_size = need_integer(path, values, "n_embd")
    return GPT2Config(
        vocab_size=need_integer(path, values, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=values.get("n_inner") or 4 * hidden_size,
        num_layers=need_integer(path, values, "n_layer"),
        num_heads=need_integer(path, values, "n_head"),
        max_tokens=need_integer(path, values, "n_positions"),
        activation=read_activation(path, values.get("activation_function", "gelu_new")),
        norm_eps=float(values.get("layer_norm_epsilon", 1e-5)),
        labels=read_labels(values),
        pad_token_id=read_pad_token(values),
    )


def table(config: GPT2Config) -> dict[str, Any]:
    """Where the params lie in a checkpoint."""
    size, wide, num_layers = config.hidden_size, config.intermediate_size, config.num_layers

    def stored_as_used(name: str, size_in: int, size_out: int) -> dict[str, Tensor]:
        """GPT-2's linear maps are stored [in, out]."""
        params = linear(f"transformer.h.{{}}.{name}", size_in, size_out, num_layers)
        kernel = params["kernel"]._replace(shape=(size_in, size_out), transposed=False)
        return {**params, "kernel": kernel}

    return {
        "token_embedding": Tensor("transformer.wte.weight", (config.vocab_size, size)),
        "position_embedding": Tensor("transformer.wpe.weight", (config.max_tokens, size)),
        "layers": {
            "attention_norm": norm("transformer.h.{}.ln_1", size, num_layers),
            "query_key_value": stored_as_used("attn.c_attn", size, 3 * size),
            "attention_output": stored_as_used("attn.c_proj", size, size),
            "mlp_norm": norm("transformer.h.{}.ln_2", size, num_layers),
            "mlp_input": stored_as_used("mlp.c_fc", size, wide),
            "mlp_output": stored_as_used("mlp.c_proj", wide, size),
        },
        "norm": norm("transformer.ln_f", size),
        "score": linear("score", size, len(config.labels), bias=False),
    }


def compute_logits(
    params: dict[str, Any], tokens: jax.Array, mask: jax.Array, *, config: GPT2Config
) -> jax.Array:
    """Logits float32 [B, labels] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    Padding may be on either side, with any id.
    """
    mask = without_end(tokens, mask, config.pad_token_id)
    hidden = params["token_embedding"][tokens] + params["position_embedding"][positions(mask)]
    seen = jnp.tri(tokens.shape[1], dtype=bool) & mask[:, None]
    activation = ACTIVATIONS[config.activation]

    def layer(
        hidden: jax.Array,
        number: jax.Array | int,
        seen: jax.Array = seen,
        read: Callable[[jax.Array], jax.Array] = lambda states: states,
    ) -> jax.Array:
        """The states after one layer, of those tokens that `read` takes."""
        weights = jax.tree.map(lambda leaf: leaf[number], params["layers"])
        x = layer_norm(hidden, weights["attention_norm"], config.norm_eps)
        query, keys, values = jnp.split(project(x, weights["query_key_value"]), 3, axis=-1)
        attended = attend(read(query), keys, values, seen, config.num_heads)
        hidden = read(hidden) + project(attended, weights["attention_output"])
        x = layer_norm(hidden, weights["mlp_norm"], config.norm_eps)
        x = activation(project(x, weights["mlp_input"]))
        return hidden + project(x, weights["mlp_output"])

    hidden, _ = jax.lax.scan(
        lambda hidden, number: (layer(hidden, number), None),
        hidden,
        jnp.arange(config.num_layers - 1),
    )
    # Of the last layer only the last token is needed.
    hidden = layer(hidden, -1, mask[:, None], read=lambda states: last_real(states, mask)[:, None])
    return head(layer_norm(hidden[:, 0], params["norm"], config.norm_eps), params["score"])
