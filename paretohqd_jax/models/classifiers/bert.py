"""BERT (Devlin et al., arXiv 1810.04805), DistilBERT (1910.01108) and BERT sentence encoders.

A classifier reads the first token through one more map; a sentence encoder (Reimers and Gurevych,
arXiv 1908.10084) gives the mean of all tokens, or the first, as the vector of the text.
"""

from __future__ import annotations

import dataclasses
import json
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
)
from paretohqd_jax.models.classifiers.layers import (
    ACTIVATIONS,
    attend,
    first_real,
    head,
    layer_norm,
    positions,
    project,
)
from paretohqd_jax.models.fields import need_integer
from paretohqd_jax.models.huggingface import read_json

# A sentence encoder has no use for the map that BERT was trained to read its first token with.
IGNORED = r"embeddings\.position_ids$|^pooler\."
# Our names of a layer's maps and norms, and those of BERT and DistilBERT.
NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp_input": "intermediate.dense",
    "mlp_output": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
DISTILLED_NAMES = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "mlp_input": "ffn.lin1",
    "mlp_output": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and constants. `pooler` is the activation of the map before the scores. A sentence
    encoder has no labels; it takes the `mean` of the tokens or the first, and may `normalize` it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_positions: int
    max_tokens: int
    num_token_types: int
    activation: str
    norm_eps: float
    pooler: str = "tanh"
    labels: tuple[str, ...] = ()
    mean: bool = False
    normalize: bool = False


def read_config(path: Path, values: dict[str, Any]) -> BertConfig:
    """The configuration of a BertForSequenceClassification in a config.json."""
    kind = values.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise InputError(f"{path}: position_embedding_type {kind!r} is not supported")
    return BertConfig(
        vocab_size=need_integer(path, values, "vocab_size"),
        hidden_size=need_integer(path, values, "hidden_size"),
        intermediate_size=need_integer(path, values, "intermediate_size"),
        num_layers=need_integer(path, values, "num_hidden_layers"),
        num_heads=need_integer(path, values, "num_attention_heads"),
        num_positions=need_integer(path, values, "max_position_embeddings"),
        max_tokens=need_integer(path, values, "max_position_embeddings"),
        num_token_types=need_integer(path, values, "type_vocab_size"),
        activation=read_activation(path, values.get("hidden_act", "gelu")),
        norm_eps=float(values.get("layer_norm_eps", 1e-12)),
        labels=read_labels(values),
    )


def read_distilled_config(path: Path, values: dict[str, Any]) -> BertConfig:
    """The configuration of a DistilBertForSequenceClassification in a config.json."""
    return BertConfig(
        vocab_size=need_integer(path, values, "vocab_size"),
        hidden_size=need_integer(path, values, "dim"),
        intermediate_size=need_integer(path, values, "hidden_dim"),
        num_layers=need_integer(path, values, "n_layers"),
        num_heads=need_integer(path, values, "n_heads"),
        num_positions=need_integer(path, values, "max_position_embeddings"),
        max_tokens=need_integer(path, values, "max_position_embeddings"),
        num_token_types=0,
        activation=read_activation(path, values.get("activation", "gelu")),
        norm_eps=1e-12,
        pooler="relu",
        labels=read_labels(values),
    )


def read_encoder_config(path: Path, values: dict[str, Any]) -> BertConfig:
    """The configuration of a sentence encoder: config.json and sentence-transformers' own files."""
    modules = _read_modules(path.parent)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(f"{path.parent / 'modules.json'}: modules {kinds} are not supported")
    pooling_path = path.parent / modules[1]["path"] / "config.json"
    options = read_json(pooling_path)
    chosen = [name for name, value in options.items() if name.startswith("pooling_mode") and value]
    if chosen not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise InputError(f"{pooling_path}: pooling {chosen} is not supported; mean or cls is")
    config = read_config(path, values)
    limits_path = path.parent / "sentence_bert_config.json"
    limits = read_json(limits_path) if limits_path.is_file() else {}
    return dataclasses.replace(
        config,
        labels=(),
        max_tokens=limits.get("max_seq_length") or config.max_tokens,
        mean=chosen == ["pooling_mode_mean_tokens"],
        normalize="Normalize" in kinds,
    )


def _read_modules(directory: Path) -> list[dict[str, Any]]:
    path = directory / "modules.json"
    if not path.is_file():
        raise InputError(
            f"{directory}: a BertModel alone is no classifier and, without modules.json, no "
            "sentence encoder"
        )
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


def table(config: BertConfig) -> dict[str, Any]:
    """Where the params of a BertForSequenceClassification lie in a checkpoint."""
    size = config.hidden_size
    return {
        **_trunk(config, "bert."),
        "pooler": linear("bert.pooler.dense", size, size),
        "score": linear("classifier", size, len(config.labels)),
    }


def encoder_table(config: BertConfig) -> dict[str, Any]:
    """Where the params of a sentence encoder lie in a checkpoint."""
    return _trunk(config, "")


def distilled_table(config: BertConfig) -> dict[str, Any]:
    """Where the params of a DistilBertForSequenceClassification lie in a checkpoint."""
    size = config.hidden_size
    return {
        "embeddings": _embeddings(config, "distilbert.", ("word", "position")),
        "layers": _layers(config, "distilbert.transformer.layer.{}", DISTILLED_NAMES),
        "pooler": linear("pre_classifier", size, size),
        "score": linear("classifier", size, len(config.labels)),
    }


def _trunk(config: BertConfig, prefix: str) -> dict[str, Any]:
    return {
        "embeddings": _embeddings(config, prefix, ("word", "position", "token_type")),
        "layers": _layers(config, f"{prefix}encoder.layer.{{}}", NAMES),
    }


def _layers(config: BertConfig, layer: str, names: dict[str, str]) -> dict[str, Any]:
    size, wide, num_layers = config.hidden_size, config.intermediate_size, config.num_layers
    sizes = {"mlp_input": (size, wide), "mlp_output": (wide, size)}
    return {
        ours: norm(f"{layer}.{theirs}", size, num_layers)
        if ours.endswith("norm")
        else linear(f"{layer}.{theirs}", *sizes.get(ours, (size, size)), num_layers)
        for ours, theirs in names.items()
    }


def _embeddings(config: BertConfig, prefix: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    rows = {
        "word": config.vocab_size,
        "position": config.num_positions,
        "token_type": config.num_token_types,
    }
    tables = {
        kind: Tensor(
            f"{prefix}embeddings.{kind}_embeddings.weight", (rows[kind], config.hidden_size)
        )
        for kind in kinds
    }
    return {**tables, "norm": norm(f"{prefix}embeddings.LayerNorm", config.hidden_size)}


def encode(
    params: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    token_types: jax.Array | None = None,
    *,
    config: BertConfig,
) -> jax.Array:
    """Hidden states [B, T, D] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    Padding may be on either side. `token_types` int32 [B, T] is 1 in the second text of a pair.
    """
    embeddings = params["embeddings"]
    hidden = embeddings["word"][tokens] + embeddings["position"][positions(mask)]
    if config.num_token_types:
        types = jnp.zeros_like(tokens) if token_types is None else token_types
        hidden = hidden + embeddings["token_type"][types]
    hidden = layer_norm(hidden, embeddings["norm"], config.norm_eps)
    activation = ACTIVATIONS[config.activation]

    def layer(hidden: jax.Array, params: dict[str, Any]) -> tuple[jax.Array, None]:
        query, keys, values = (project(hidden, params[name]) for name in ("query", "key", "value"))
        attended = attend(query, keys, values, mask[:, None], config.num_heads)
        hidden = hidden + project(attended, params["attention_output"])
        hidden = layer_norm(hidden, params["attention_norm"], config.norm_eps)
        x = activation(project(hidden, params["mlp_input"]))
        hidden = hidden + project(x, params["mlp_output"])
        return layer_norm(hidden, params["mlp_norm"], config.norm_eps), None

    hidden, _ = jax.lax.scan(layer, hidden, params["layers"])
    return hidden


def compute_logits(
    params: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    token_types: jax.Array | None = None,
    *,
    config: BertConfig,
) -> jax.Array:
    """Logits float32 [B, labels]; arguments as for `encode`."""
    hidden = encode(params, tokens, mask, token_types, config=config)
    pooled = ACTIVATIONS[config.pooler](project(first_real(hidden, mask), params["pooler"]))
    return head(pooled, params["score"])


def compute_embeddings(
    params: dict[str, Any], tokens: jax.Array, mask: jax.Array, *, config: BertConfig
) -> jax.Array:
    """A sentence encoder's vectors float32 [B, D]; arguments as for `encode`."""
    hidden = encode(params, tokens, mask, config=config).astype(jnp.float32)
    pooled = first_real(hidden, mask)
    if config.mean:
        weights = mask[:, :, None].astype(jnp.float32)
        pooled = jnp.sum(hidden * weights, axis=1) / jnp.sum(weights, axis=1)
    if config.normalize:
        pooled = pooled / jnp.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled
