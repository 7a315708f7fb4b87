"""Reward models trained here: LoRA and a head on the first layers of a language model."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama, param_shapes
from paretohqd_jax.models.lora import init_adapters
from paretohqd_jax.models.match import match_shapes
from paretohqd_jax.models.reward_head import compute_rewards, read_adapter
from paretohqd_jax.models.sharding import on_all_devices, whole_on_all_devices
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_config, load_pretrained
from paretohqd_jax.models.word_pairs import word_pairs
from paretohqd_jax.rewards.registry import Entry
from paretohqd_jax.rewards.reward_model import (
    RewardModel,
    encode_pairs,
    separator_of,
    token_types,
)


@dataclasses.dataclass(frozen=True)
class Output:
    """The rewards of such a model as a RewardModel's `apply`; equal to another of the same values.

    Params are {"base": weights of the language model, "lora": adapter with its head}.
    """

    model: Llama
    sign: int
    separator: int | None  # token after which responses begin, where the adapter has a "match"

    def __call__(self, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        is_response = None
        if self.separator is not None:
            is_response = token_types(tokens, mask, self.separator)
        return self.sign * compute_rewards(
            self.model, params["base"], params["lora"], tokens, mask, is_response=is_response
        )


def load_trained(entry: Entry, dtype: str = "float32") -> RewardModel:
    """The reward model of an entry with an adapter; its base is `entry.checkpoint`.

    Raises:
      InputError: base or adapter cannot be read, or do not belong together.
    """
    model, adapter = open_trained(entry, dtype)
    tokenizer = load_tokenizer(entry.checkpoint)
    everywhere = whole_on_all_devices()
    shardings = everywhere and jax.tree.map(lambda _: everywhere, param_shapes(model.config))
    _, params = load_pretrained(
        entry.checkpoint, dtype, shardings=shardings, num_layers=model.config.num_layers
    )
    separator = None
    if "match" in adapter:
        separator = separator_of(tokenizer, entry.texts, entry.cut)
        adapter["match"]["word_pairs"] = word_pairs(tokenizer)
    params = {"base": params, "lora": jax.tree.map(on_all_devices, adapter)}
    max_tokens = min(entry.max_tokens, model.config.max_position_embeddings)
    encode = functools.partial(encode_pairs, tokenizer, entry.texts, entry.cut, max_tokens)
    output = Output(model, entry.sign, separator)
    return RewardModel(encode, output, params, model.config.vocab_size)


def open_trained(entry: Entry, dtype: str = "float32") -> tuple[Llama, dict[str, Any]]:
    """The network and its adapter, as numpy arrays; of the base only the configuration is read.

    Raises:
      InputError: see `load_trained`.
    """
    adapter, lora, num_layers = read_adapter(Path(entry.adapter))
    config = load_config(entry.checkpoint, dtype, num_layers=num_layers)
    expected = jax.eval_shape(lambda: init_adapters(jax.random.key(0), config, lora, 1))
    shapes = jax.tree.map(lambda leaf: leaf.shape[1:], expected)
    if "match" in adapter:
        shapes["match"] = match_shapes(adapter["match"], config.hidden_size)
    if jax.tree.map(lambda leaf: leaf.shape, adapter) != shapes:
        raise InputError(f"{entry.adapter}: is no adapter of {entry.checkpoint}; give its own base")
    return Llama(config, lora), adapter
