"""DeBERTa-v2 and v3 (He et al., arXiv 2006.03654 and 2111.09543) as classifiers.

Attention is disentangled: to the product of a query and a key come the query's with the embedding
of their distance, and that embedding's with the key. Long distances share embeddings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    first_real,
    head,
    layer_norm,
    positions,
    project,
)
from paretohqd_jax.models.fields import need_integer

IGNORED = r"embeddings\.position_(ids|embeddings\.weight)$"


@dataclasses.dataclass(frozen=True)
class DebertaConfig:
    """Sizes and constants. Distances from -`span` to `span` have an embedding; with `num_buckets`
    the long ones share them. `kernel_size` is that of a convolution beside the first layer, or 0.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_tokens: int
    num_token_types: int
    absolute_positions: bool
    max_distance: int
    num_buckets: int
    position_kinds: tuple[str, ...]
    normalize_distances: bool
    kernel_size: int
    kernel_activation: str
    activation: str
    pooler: str
    norm_eps: float
    labels: tuple[str, ...]

    @property
    def span(self) -> int:
        return self.num_buckets if self.num_buckets > 0 else self.max_distance


def read_config(path: Path, values: dict[str, Any]) -> DebertaConfig:
    """The configuration in a config.json."""
    hidden_size = need_integer(path, values, "hidden_size")
    num_heads = need_integer(path, values, "num_attention_heads")
    for option, default, served in (
        ("relative_attention", False, True),
        ("share_att_key", False, True),
        ("embedding_size", hidden_size, hidden_size),
        ("attention_head_size", hidden_size // num_heads, hidden_size // num_heads),
        ("conv_groups", 1, 1),
    ):
        if values.get(option, default) != served:
            raise InputError(f"{path}: {option}={values.get(option, default)} is not supported")
    listed = values.get("pos_att_type") or []
    listed = listed.lower().split("|") if isinstance(listed, str) else listed
    kinds = tuple(kind.strip() for kind in listed)
    if not set(kinds) <= {"c2p", "p2c"}:
        raise InputError(f"{path}: pos_att_type {kinds} is not supported; 'c2p' and 'p2c' are")
    max_tokens = need_integer(path, values, "max_position_embeddings")
    max_distance = values.get("max_relative_positions", -1)
    return DebertaConfig(
        vocab_size=need_integer(path, values, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=need_integer(path, values, "intermediate_size"),
        num_layers=need_integer(path, values, "num_hidden_layers"),
        num_heads=num_heads,
        max_tokens=max_tokens,
        num_token_types=values.get("type_vocab_size") or 0,
        absolute_positions=bool(values.get("position_biased_input", True)),
        max_distance=max_distance if max_distance > 0 else max_tokens,
        num_buckets=values.get("position_buckets", -1),
        position_kinds=kinds,
        normalize_distances="layer_norm" in values.get("norm_rel_ebd", "none").lower(),
        kernel_size=values.get("conv_kernel_size", 0),
        kernel_activation=read_activation(path, values.get("conv_act", "tanh")),
        activation=read_activation(path, values.get("hidden_act", "gelu")),
        pooler=read_activation(path, values.get("pooler_hidden_act", "gelu")),
        norm_eps=float(values.get("layer_norm_eps", 1e-7)),
        labels=read_labels(values),
    )


def table(config: DebertaConfig) -> dict[str, Any]:
    """Where the params lie in a checkpoint."""
    size, wide, num_layers = config.hidden_size, config.intermediate_size, config.num_layers
    rows = {"word": config.vocab_size}
    if config.absolute_positions:
        rows["position"] = config.max_tokens
    if config.num_token_types:
        rows["token_type"] = config.num_token_types
    name = "deberta.embeddings.{}_embeddings.weight"
    embeddings: dict[str, Any] = {
        kind: Tensor(name.format(kind), (number, size)) for kind, number in rows.items()
    }
    embeddings["norm"] = norm("deberta.embeddings.LayerNorm", size)
    embeddings["distance"] = Tensor(
        "deberta.encoder.rel_embeddings.weight", (2 * config.span, size)
    )
    if config.normalize_distances:
        embeddings["distance_norm"] = norm("deberta.encoder.LayerNorm", size)
    layer = "deberta.encoder.layer.{}"
    params = {
        "embeddings": embeddings,
        "layers": {
            "query": linear(f"{layer}.attention.self.query_proj", size, size, num_layers),
            "key": linear(f"{layer}.attention.self.key_proj", size, size, num_layers),
            "value": linear(f"{layer}.attention.self.value_proj", size, size, num_layers),
            "attention_output": linear(f"{layer}.attention.output.dense", size, size, num_layers),
            "attention_norm": norm(f"{layer}.attention.output.LayerNorm", size, num_layers),
            "mlp_input": linear(f"{layer}.intermediate.dense", size, wide, num_layers),
            "mlp_output": linear(f"{layer}.output.dense", wide, size, num_layers),
            "mlp_norm": norm(f"{layer}.output.LayerNorm", size, num_layers),
        },
        "pooler": linear("pooler.dense", size, size),
        "score": linear("classifier", size, len(config.labels)),
    }
    if config.kernel_size:
        conv = "deberta.encoder.conv"
        params["convolution"] = {
            "kernel": Tensor(f"{conv}.conv.weight", (size, size, config.kernel_size)),
            "bias": Tensor(f"{conv}.conv.bias", (size,)),
            "norm": norm(f"{conv}.LayerNorm", size),
        }
    return params


def distance_rows(num_tokens: int, config: DebertaConfig) -> np.ndarray:
    """Which embedding stands for the distance of each query and key, int32 [T, T].

    Distances up to a quarter of all rows have their own, longer ones share logarithmic buckets.
    """
    distance = np.arange(num_tokens)[:, None] - np.arange(num_tokens)
    if config.num_buckets > 0:
        middle = config.num_buckets // 2
        # In float32 like the reference, whose rounding decides between neighbouring buckets.
        far = np.maximum(np.abs(distance), middle).astype(np.float32)
        share = np.log(far / middle) / np.log(np.float32((config.max_distance - 1) / middle))
        bucket = np.ceil(share * np.float32(middle - 1)).astype(np.int64) + middle
        distance = np.where(np.abs(distance) <= middle, distance, np.sign(distance) * bucket)
    return np.clip(distance + config.span, 0, 2 * config.span - 1).astype(np.int32)


def compute_logits(
    params: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    token_types: jax.Array | None = None,
    *,
    config: DebertaConfig,
) -> jax.Array:
    """Logits float32 [B, labels] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    Padding may be on either side. `token_types` int32 [B, T] is for the models that have them.
    """
    embeddings = params["embeddings"]
    embedded = embeddings["word"][tokens]
    if config.absolute_positions:
        embedded = embedded + embeddings["position"][positions(mask)]
    if config.num_token_types:
        types = jnp.zeros_like(tokens) if token_types is None else token_types
        embedded = embedded + embeddings["token_type"][types]
    embedded = layer_norm(embedded, embeddings["norm"], config.norm_eps) * mask[:, :, None]
    distances = embeddings["distance"]
    if config.normalize_distances:
        distances = layer_norm(distances, embeddings["distance_norm"], config.norm_eps)
    activation = ACTIVATIONS[config.activation]

    def layer(hidden: jax.Array, params: dict[str, Any]) -> tuple[jax.Array, None]:
        attended = disentangled_attention(hidden, distances, mask, params, config)
        hidden = hidden + project(attended, params["attention_output"])
        hidden = layer_norm(hidden, params["attention_norm"], config.norm_eps)
        x = project(activation(project(hidden, params["mlp_input"])), params["mlp_output"])
        return layer_norm(hidden + x, params["mlp_norm"], config.norm_eps), None

    first = jax.tree.map(lambda leaf: leaf[:1], params["layers"])
    others = jax.tree.map(lambda leaf: leaf[1:], params["layers"])
    hidden, _ = jax.lax.scan(layer, embedded, first)
    if config.kernel_size:
        hidden = add_convolution(hidden, embedded, mask, params["convolution"], config)
    hidden, _ = jax.lax.scan(layer, hidden, others)
    pooled = ACTIVATIONS[config.pooler](project(first_real(hidden, mask), params["pooler"]))
    return head(pooled, params["score"])


def disentangled_attention(
    hidden: jax.Array,
    distances: jax.Array,
    mask: jax.Array,
    params: dict[str, Any],
    config: DebertaConfig,
) -> jax.Array:
    """Attention of hidden [B, T, D] to itself, given the embeddings of distances [2 span, D]."""

    def heads(x: jax.Array, name: str) -> jax.Array:
        x = project(x, params[name])
        return x.reshape(*x.shape[:-1], config.num_heads, -1)

    query, keys, values = (heads(hidden, name) for name in ("query", "key", "value"))
    rows = distance_rows(hidden.shape[1], config)[None, None]
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, keys, preferred_element_type=jnp.float32)
    if "c2p" in config.position_kinds:
        products = jnp.einsum("bqhd,rhd->bhqr", query, heads(distances, "key"))
        scores = scores + jnp.take_along_axis(products, rows, axis=-1)
    if "p2c" in config.position_kinds:
        products = jnp.einsum("bkhd,rhd->bhrk", keys, heads(distances, "query"))
        scores = scores + jnp.take_along_axis(products, rows, axis=-2)
    scale = (query.shape[-1] * (1 + len(config.position_kinds))) ** -0.5
    scores = jnp.where(mask[:, None, None], scores * scale, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(hidden.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, values).reshape(hidden.shape)


def add_convolution(
    hidden: jax.Array,
    embedded: jax.Array,
    mask: jax.Array,
    params: dict[str, Any],
    config: DebertaConfig,
) -> jax.Array:
    """The first layer's output [B, T, D] and a convolution of its input over neighbours."""
    convolved = jax.lax.conv_general_dilated(
        embedded, params["kernel"], window_strides=(1,), padding="SAME",
        dimension_numbers=("NTC", "OIT", "NTC"),
    )  # fmt: skip
    convolved = ACTIVATIONS[config.kernel_activation](
        jnp.where(mask[:, :, None], convolved + params["bias"], 0.0)
    )
    return layer_norm(hidden + convolved, params["norm"], config.norm_eps) * mask[:, :, None]
