"""Reads model directories in Hugging Face's layout: config.json and safetensors, sharded or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import LlamaConfig, RopeScaling

INDEX = "model.safetensors.index.json"


def download(name: str, weights: bool) -> Path:
    """The local snapshot of a model on the hub, without its pickles and code."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.jinja"] + (["*.safetensors"] if weights else [])
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"model {name!r} is no directory here, and the Hugging Face hub says: {reason}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; is this a model directory?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object")
    return value


def read_config(directory: Path) -> LlamaConfig:
    """The LlamaConfig of a directory's config.json, as transformers 4 or 5 writes it."""
    path = directory / "config.json"
    values = read_json(path)
    _refuse_other_models(path, values)

    def need(field: str) -> int:
        if not isinstance(values.get(field), int):
            raise InputError(f"{path}: field {field!r} is missing or no integer")
        return values[field]

    # transformers 5 keeps all of RoPE in rope_parameters, 4 spread it over two fields.
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or values.get("rope_theta") or 10000.0
    num_heads, hidden_size = need("num_attention_heads"), need("hidden_size")
    return LlamaConfig(
        vocab_size=need("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=need("intermediate_size"),
        num_layers=need("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=values.get("num_key_value_heads") or num_heads,
        head_dim=values.get("head_dim") or hidden_size // num_heads,
        max_position_embeddings=values.get("max_position_embeddings") or 2048,
        rope_theta=float(theta),
        rope_scaling=_rope_scaling(path, rope),
        rms_norm_eps=float(values.get("rms_norm_eps") or 1e-6),
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
    )


def _refuse_other_models(path: Path, values: dict[str, Any]) -> None:
    model_type = values.get("model_type")
    architectures = values.get("architectures") or ["LlamaForCausalLM"]
    if model_type != "llama" or architectures != ["LlamaForCausalLM"]:
        name = model_type if model_type != "llama" else ", ".join(architectures)
        raise InputError(
            f"{path}: architecture {name!r} is not supported; only Llama causal language models"
            " (LlamaForCausalLM) are"
        )
    if values.get("hidden_act", "silu") != "silu":
        raise InputError(f"{path}: hidden_act {values['hidden_act']!r} is not supported; only silu")
    for option in ("attention_bias", "mlp_bias", "quantization_config"):
        if values.get(option):
            raise InputError(f"{path}: models with {option} are not supported")


def _rope_scaling(path: Path, rope: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{path}: a partial_rotary_factor is not supported")
    if kind == "default":
        return None
    if kind != "llama3":
        raise InputError(f"{path}: RoPE scaling {kind!r} is not supported; only 'llama3' is")
    try:
        return RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_position_embeddings=int(rope["original_max_position_embeddings"]),
        )
    except KeyError as error:
        raise InputError(f"{path}: RoPE scaling 'llama3' lacks the field {error}") from None


def open_weights(directory: Path) -> tuple[set[str], Callable[[str], np.ndarray]]:
    """The names of the tensors in a directory, and a function that reads one, as stored."""
    from safetensors import SafetensorError, safe_open

    def opened(file: Path) -> Any:
        if not file.is_file():
            raise InputError(f"{file}: no such file, though {INDEX} names it")
        try:
            return safe_open(file, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: damaged or cut off ({error}); fetch the file again"
            ) from error

    if (directory / INDEX).is_file():
        file_of = read_json(directory / INDEX).get("weight_map")
        if not isinstance(file_of, dict) or not file_of:
            raise InputError(f"{directory / INDEX}: holds no weight_map")
        files = {name: opened(directory / name) for name in sorted(set(file_of.values()))}
    elif (directory / "model.safetensors").is_file():
        name = "model.safetensors"
        files = {name: opened(directory / name)}
        file_of = dict.fromkeys(files[name].keys(), name)
    else:
        raise InputError(
            f"{directory}: holds no model.safetensors and no {INDEX}; other formats (such as"
            " pytorch_model.bin, a pickle) are not read, convert them to safetensors"
        )

    def read(tensor: str) -> np.ndarray:
        try:
            return files[file_of[tensor]].get_tensor(tensor)
        except SafetensorError as error:
            path = directory / file_of[tensor]
            raise InputError(f"{path}: tensor {tensor} cannot be read ({error})") from error

    return set(file_of), read
