"""Our Llama, and its kin, with scores read off the last token instead of logits of words.

Two forms of checkpoint: transformers' ...ForSequenceClassification, and the LlamaForScore of Dai et
al. (Safe RLHF, arXiv 2310.12773), whose rewards and costs have a head of another name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from paretohqd_jax.models import huggingface
from paretohqd_jax.models.classifiers.checkpoint import (
    Tensor,
    linear,
    read_labels,
    read_pad_token,
)
from paretohqd_jax.models.classifiers.layers import head, last_real, without_end
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.llama_config import LlamaConfig
from paretohqd_jax.models.weights import layer_tensors

# Tables that follow from the configuration; the running mean of scores where it is not used.
IGNORED = r"rotary_emb\.inv_freq$|^normalizer\."


@dataclasses.dataclass(frozen=True)
class LlamaClassifierConfig:
    """The model, the head's name in the checkpoint and what its outputs mean."""

    model: LlamaConfig
    head_name: str
    head_bias: bool
    labels: tuple[str, ...]
    normalization: str = "none"  # of the scores, by stored mean and variance
    pad_token_id: int | None = None

    @property
    def max_tokens(self) -> int:
        return self.model.max_position_embeddings

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size


def read_config(path: Path, values: dict[str, Any]) -> LlamaClassifierConfig:
    """The configuration of a ...ForSequenceClassification in a config.json."""
    model = _read_model(path, values)
    labels, padding = read_labels(values), read_pad_token(values)
    return LlamaClassifierConfig(model, "score", False, labels, pad_token_id=padding)


def read_score_config(path: Path, values: dict[str, Any]) -> LlamaClassifierConfig:
    """The configuration of a LlamaForScore in a config.json; it knows padding by its mask alone."""
    bias = values.get("score_bias", values.get("bias", True))
    kind, count = values.get("score_type", "reward"), values.get("score_dim", 1)
    labels = (kind,) if count == 1 else tuple(f"{kind}_{index}" for index in range(count))
    normalization = "none"
    if values.get("do_normalize"):  # rewards may be shifted; a cost of 0 keeps its meaning
        normalization = {"reward": "affine", "cost": "scale"}.get(kind, "none")
    model = _read_model(path, values)
    return LlamaClassifierConfig(model, "score_head", bool(bias), labels, normalization)


def table(config: LlamaClassifierConfig) -> dict[str, Any]:
    """Where the params lie in a checkpoint."""
    model = config.model
    layers = {
        ours: Tensor(f"model.layers.{{}}.{name}", shape, True, model.num_layers)
        for ours, (name, shape) in layer_tensors(model).items()
    }
    embedding = (model.vocab_size, model.hidden_size)
    statistics = {}
    if config.normalization != "none":
        shape = (len(config.labels),)
        mean, variance = (Tensor(f"normalizer.{name}", shape) for name in ("mean", "var"))
        statistics = {"normalizer": {"mean": mean, "variance": variance}}
    return statistics | {
        "model": {
            "embed_tokens": Tensor("model.embed_tokens.weight", embedding),
            "layers": traverse_util.unflatten_dict(layers),
            "norm": Tensor("model.norm.weight", (model.hidden_size,)),
        },
        "score": linear(
            config.head_name, model.hidden_size, len(config.labels), bias=config.head_bias
        ),
    }


def compute_logits(
    params: dict[str, Any], tokens: jax.Array, mask: jax.Array, *, config: LlamaClassifierConfig
) -> jax.Array:
    """Logits float32 [B, labels] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    Padding may be on either side, with any id.
    """
    mask = without_end(tokens, mask, config.pad_token_id)
    hidden, _ = Llama(config.model).apply({"params": params["model"]}, tokens, mask)
    scores = head(last_real(hidden, mask), params["score"])
    if config.normalization == "none":
        return scores
    statistics = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params["normalizer"])
    mean = statistics["mean"] if config.normalization == "affine" else 0.0
    return (scores - mean) / (jnp.sqrt(statistics["variance"]) + 1e-8)


def _read_model(path: Path, values: dict[str, Any]) -> LlamaConfig:
    language_model = {**values, "architectures": None}
    model = huggingface.parse_config(path, language_model)
    return dataclasses.replace(model, tie_word_embeddings=True)  # no head over words
