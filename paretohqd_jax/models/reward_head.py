"""A number per text from a language model: the head of an adapter on hidden states.

It is a product with the mean state over all tokens, which says what the text is like, plus one with
the last token's, which says how it ends. Whether a response answers its prompt is told by `match`,
where an adapter has one.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_tensors
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.match import mismatch


def compute_rewards(
    model: Llama,
    params: dict[str, Any],
    adapter: dict[str, Any],
    tokens: jax.Array,
    mask: jax.Array,
    dropout_key: jax.Array | None = None,
    is_response: jax.Array | None = None,
) -> jax.Array:
    """Rewards float32 [B] of tokens int32 [B, T]; mask bool [B, T], True on real tokens.

    With a `dropout_key` the adapter's dropout is on. Where the adapter has a "match", `is_response`
    bool [B, T] tells it where responses begin. There is no bias: only differences between the
    rewards of one model mean something.
    """
    hidden, _ = model.apply(
        {"params": params, "lora": adapter},
        tokens,
        mask,
        deterministic=dropout_key is None or model.lora.dropout == 0.0,
        rngs={} if dropout_key is None else {"dropout": dropout_key},
    )
    values = hidden.astype(jnp.float32) @ adapter["head"].T  # [B, T, 2]
    weights = mask.astype(jnp.float32)
    counts = jnp.sum(weights, axis=1)
    mean = jnp.sum(values[..., 0] * weights, axis=1) / counts
    last = (counts - 1).astype(jnp.int32)[:, None]
    rewards = mean + jnp.take_along_axis(values[..., 1], last, axis=1)[:, 0]
    if "match" not in adapter:
        return rewards
    embedding = params["embed_tokens"]
    return rewards - mismatch(adapter["match"], embedding, tokens, mask, is_response)


def write_adapter(path: Path, adapter: dict[str, Any], lora: LoraConfig, num_layers: int) -> None:
    """Writes one adapter with its head as float16 safetensors; how to use it is in the metadata."""
    tensors = {
        name: np.asarray(array, np.float16)
        for name, array in traverse_util.flatten_dict(adapter, sep=".").items()
    }
    settings = {"lora": dataclasses.asdict(lora), "num_layers": num_layers}
    write_tensors(path, tensors, {"reward_model": json.dumps(settings, sort_keys=True)})


def read_adapter(path: Path) -> tuple[dict[str, Any], LoraConfig, int]:
    """What `write_adapter` wrote: the adapter in float32, its configuration, the layers it is for.

    Raises InputError where there is no such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            settings = json.loads(file.metadata()["reward_model"])
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
        lora, num_layers = LoraConfig(**settings["lora"]), int(settings["num_layers"])
        head = tensors["head"]
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no adapter of a reward model ({error})") from error
    if head.ndim == 1:  # of a file from before heads read the last state too
        tensors["head"] = np.stack([head, np.zeros_like(head)])
    return traverse_util.unflatten_dict(tensors, sep="."), lora, num_layers
