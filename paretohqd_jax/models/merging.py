"""A base model and an adapter out as one checkpoint in Hugging Face's layout."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from paretohqd_jax.files import atomic_directory, write_json, write_tensors
from paretohqd_jax.models import gemma
from paretohqd_jax.models.huggingface import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    FULL,
    SLIDING,
    SMALL_FILES,
    read_json,
)
from paretohqd_jax.models.llama_config import LlamaConfig
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.rope_scaling import scaling_values
from paretohqd_jax.models.shards import INDEX
from paretohqd_jax.models.sources import RANDOM_TOY, resolve_source
from paretohqd_jax.models.tokenizer import eos_token_ids, load_tokenizer
from paretohqd_jax.models.weights import KERNELS, Reader, load_config, open_tensors

MAX_SHARD_BYTES = 2 * 10**9


def export_merged(
    directory: Path,
    source: str,
    adapter: dict[str, Any],
    lora: LoraConfig,
    dtype: str,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    chat_template: str | None = None,
) -> None:
    """Writes safetensors, config.json and the tokenizer of the model with its adapter built in.

    Base weights are read one by one and the updates added in float32, so memory holds the tensors
    of one file. The directory appears when it is whole.

    Args:
      directory: must not exist.
      source: of the base model, any that `weights` reads.
      adapter: one adapter, no leading axis.
      lora: its configuration.
      dtype: the weights are stored in, float32 or bfloat16.
      max_shard_bytes: tensors in one file, unless a single one is larger.
      chat_template: in Jinja; by default those of the base model stay.

    Raises:
      InputError: the base model cannot be read.
    """
    shapes, read = open_tensors(source)
    factors = _factors_by_tensor(adapter)
    files = _divide(shapes, jnp.dtype(dtype).itemsize, max_shard_bytes)
    with atomic_directory(directory) as temporary:
        _write_description(temporary, source, dtype)
        if chat_template is not None:
            _replace_chat_template(temporary, chat_template)
        for file, names in files.items():
            tensors = {
                name: _merged(read, name, shapes[name], factors.get(name), lora.scale, dtype)
                for name in names
            }
            write_tensors(temporary / file, tensors, {"format": "pt"})
        if len(files) > 1:
            total = sum(math.prod(shape) for shape in shapes.values()) * jnp.dtype(dtype).itemsize
            file_of = {name: file for file, names in files.items() for name in names}
            write_json(
                temporary / INDEX, {"metadata": {"total_size": total}, "weight_map": file_of}
            )


def _factors_by_tensor(adapter: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The factors a [in, r] and b [r, out] of each tensor that is adapted."""
    return {
        f"model.layers.{layer}.{KERNELS[target]}.weight": pair
        for target, factors in adapter["layers"].items()
        for layer, pair in enumerate(zip(factors["a"], factors["b"], strict=True))
    }


def _merged(
    read: Reader,
    name: str,
    shape: tuple[int, ...],
    factors: tuple[np.ndarray, np.ndarray] | None,
    scale: float,
    dtype: str,
) -> np.ndarray:
    """A tensor of the base model, [out, in] where it is a projection's, with its update."""
    tensor = read(name, (slice(None),) * len(shape))
    if factors is not None:
        a, b = (np.asarray(factor, np.float32) for factor in factors)
        tensor = tensor.astype(np.float32) + scale * (a @ b).T
    return np.ascontiguousarray(tensor.astype(jnp.dtype(dtype)))


def _divide(
    shapes: dict[str, tuple[int, ...]], itemsize: int, max_bytes: int
) -> dict[str, list[str]]:
    """The tensors of each file, by its name."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        num_bytes = math.prod(shape) * itemsize
        if parts[-1] and size + num_bytes > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += num_bytes
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {
        f"model-{number:05d}-of-{len(parts):05d}.safetensors": part
        for number, part in enumerate(parts, 1)
    }


def _write_description(directory: Path, source: str, dtype: str) -> None:
    """Writes config.json and the files of the tokenizer, those of the base model if it has any."""
    path = None if source == RANDOM_TOY else resolve_source(source, weights=False)
    if path is not None and path.is_dir():
        for pattern in SMALL_FILES:
            for file in path.glob(pattern):
                if file.name != "config.json" and not file.name.endswith(".index.json"):
                    shutil.copyfile(file, directory / file.name)
        values = read_json(path / "config.json")
        if values["model_type"] == gemma.SEEING:
            values = gemma.text_part(path / "config.json", values)
        name = "torch_dtype" if "torch_dtype" in values else "dtype"  # of transformers 4 or 5
        whole = {"architectures": [ARCHITECTURES[values["model_type"]]], name: dtype}
        write_json(directory / "config.json", values | whole)
        return
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(directory)
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": list(eos_token_ids(tokenizer, source)),
        "pad_token_id": tokenizer.pad_token_id,
    }
    write_json(directory / "generation_config.json", tokens)
    write_json(directory / "config.json", config_values(load_config(source, dtype)) | tokens)


def _replace_chat_template(directory: Path, template: str) -> None:
    """Writes the only chat template of a tokenizer's directory."""
    (directory / CHAT_TEMPLATE).write_text(template, "utf-8")
    path = directory / "tokenizer_config.json"
    if path.exists():
        values = read_json(path)
        if values.pop("chat_template", None) is not None:  # where it was before transformers 4.52
            write_json(path, values)


def config_values(config: LlamaConfig) -> dict[str, Any]:
    """The config.json of a model that came without one, from a GGUF file or made up.

    Biases but Qwen2's and windows but Gemma's are in none of these.
    """
    family = "qwen3" if config.qk_norm else "qwen2" if config.biased else "llama"
    if config.norms_after:
        family = "gemma3_text" if config.qk_norm else "gemma2"
    scaling = scaling_values(config.rope_scaling)
    return (_gemma_values(config) if config.norms_after else {"hidden_act": "silu"}) | {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        **({"rope_scaling": scaling} if scaling else {}),
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": config.dtype,
    }


def _gemma_values(config: LlamaConfig) -> dict[str, Any]:
    layers = range(config.num_layers)
    local = {"rope_local_base_freq": config.local_rope_theta} if config.qk_norm else {}
    return local | {
        "hidden_activation": config.activation,
        "query_pre_attn_scalar": config.query_pre_attn_scalar,
        "sliding_window": config.sliding_window,
        "layer_types": [FULL if layer in config.unwindowed_layers else SLIDING for layer in layers],
        "attn_logit_softcapping": config.attention_soft_cap,
        "final_logit_softcapping": config.logit_soft_cap,
    }
