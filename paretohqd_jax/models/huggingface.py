"""Reads model directories in Hugging Face's layout: config.json and safetensors, sharded or not."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.rope import RopeScaling

INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "BF16", "F16", "F64")  # what weights may be stored as
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")  # the last two are of tokenizers
# The families served, by model_type; all run in the one module of `llama`.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def download(name: str, weights: bool) -> Path:
    """The local snapshot of a model on the hub, without its pickles and code."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [*SMALL_FILES, "*.safetensors"] if weights else [*SMALL_FILES]
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


def need_integer(path: Path, values: dict[str, Any], field: str) -> int:
    """The value of a field of the JSON file at `path`, a size that must be there."""
    value = values.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: field {field!r} is missing or no integer above 0")
    return value


def need_number(
    path: Path, values: dict[str, Any], field: str, default: float | None = None
) -> float:
    """The value of a field of the JSON file at `path`; the default where it is missing or 0."""
    value = values.get(field) or default
    if not isinstance(value, (int, float)):
        raise InputError(f"{path}: field {field!r} is missing or no number above 0")
    return float(value)


def read_config(directory: Path) -> LlamaConfig:
    """The LlamaConfig of a directory's config.json, as transformers 4 or 5 writes it.

    Raises InputError, naming the file and what it asks for, where the model is not served here.
    """
    path = directory / "config.json"
    return parse_config(path, read_json(path))


def parse_config(path: Path, values: dict[str, Any]) -> LlamaConfig:
    """The LlamaConfig of the values read from a config.json at `path`, as `read_config`."""
    _refuse_other_models(path, values)
    family = values["model_type"]

    need = functools.partial(need_integer, path, values)

    def may_have(field: str, default: int) -> int:
        return need(field) if values.get(field) else default

    # transformers 5 keeps all of RoPE in rope_parameters, 4 spread it over two fields.
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise InputError(f"{path}: its RoPE parameters are no JSON object")
    theta = need_number(path, values, "rope_theta", 10000.0)
    num_heads, hidden_size, num_layers = (
        need(field) for field in ("num_attention_heads", "hidden_size", "num_hidden_layers")
    )
    if family == "qwen3":
        need("head_dim")
    window, unwindowed_layers = _windows(path, values, num_layers)
    return LlamaConfig(
        vocab_size=need("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=need("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=may_have("num_key_value_heads", num_heads),
        head_dim=may_have("head_dim", hidden_size // num_heads),
        max_position_embeddings=may_have("max_position_embeddings", 2048),
        rope_theta=need_number(path, rope, "rope_theta", theta),
        rope_scaling=_rope_scaling(path, rope),
        rms_norm_eps=need_number(path, values, "rms_norm_eps", 1e-6),
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        biased=_biased(values),
        qk_norm=family == "qwen3",
        sliding_window=window,
        unwindowed_layers=unwindowed_layers,
    )


def _refuse_other_models(path: Path, values: dict[str, Any]) -> None:
    family = values.get("model_type")
    if not isinstance(family, str):
        raise InputError(f"{path}: field 'model_type' is missing; it should say which model it is")
    served = ", ".join(ARCHITECTURES)
    if family not in ARCHITECTURES:
        raise InputError(f"{path}: architecture {family!r} is not supported; {served} are")
    architectures = values.get("architectures") or [ARCHITECTURES[family]]
    if architectures != [ARCHITECTURES[family]]:
        raise InputError(
            f"{path}: architecture {', '.join(architectures)!r} is not supported; of {family!r}"
            f" models only {ARCHITECTURES[family]} is"
        )
    if values.get("hidden_act", "silu") != "silu":
        raise InputError(f"{path}: hidden_act {values['hidden_act']!r} is not supported; only silu")
    if values.get("quantization_config"):
        raise InputError(f"{path}: models with quantization_config are not supported")
    if values.get("partial_rotary_factor") not in (None, 1.0):
        raise InputError(f"{path}: a partial_rotary_factor is not supported")


def _biased(values: dict[str, Any]) -> tuple[str, ...]:
    """The projections with a bias: always three in Qwen2; in Llama and Qwen3 as the file says."""
    if values["model_type"] == "qwen2":
        return ("q_proj", "k_proj", "v_proj")
    names: tuple[str, ...] = ()
    if values["model_type"] in ("llama", "qwen3") and values.get("attention_bias"):
        names += ("q_proj", "k_proj", "v_proj", "o_proj")
    if values["model_type"] == "llama" and values.get("mlp_bias"):
        names += ("gate_proj", "up_proj", "down_proj")
    return names


def _windows(
    path: Path, values: dict[str, Any], num_layers: int
) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, None if no layer has one, and the layers without it.

    Missing fields have the values that transformers gives them.
    """
    family, layers = values["model_type"], range(num_layers)
    window, unwindowed = None, tuple(layers)
    if family == "mistral":
        window = values.get("sliding_window", 4096)
        unwindowed = () if window else unwindowed
    elif family in ("qwen2", "qwen3") and values.get("use_sliding_window"):
        window = values.get("sliding_window", 4096)
        unwindowed = tuple(layers[: values.get("max_window_layers", 28)])
    types = values.get("layer_types")
    if types is not None:
        for kind in types:
            if kind not in ("full_attention", "sliding_attention"):
                raise InputError(f"{path}: layer type {kind!r} is not supported")
        listed = tuple(layer for layer, kind in enumerate(types) if kind == "full_attention")
        fixed = family in ("llama", "mistral") and listed != unwindowed
        if len(types) != num_layers or fixed or (len(listed) < num_layers and not window):
            raise InputError(
                f"{path}: layer_types do not fit the other fields (model_type {family!r},"
                f" {num_layers} layers, sliding window {window})"
            )
        unwindowed = listed
    return (None, ()) if len(unwindowed) == num_layers else (window, unwindowed)


def _rope_scaling(path: Path, rope: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{path}: a partial_rotary_factor is not supported")
    if kind == "default":
        return None
    if kind != "llama3":
        raise InputError(f"{path}: RoPE scaling {kind!r} is not supported; only 'llama3' is")
    need = functools.partial(need_number, path, rope)
    return RopeScaling(
        factor=need("factor"),
        low_freq_factor=need("low_freq_factor"),
        high_freq_factor=need("high_freq_factor"),
        original_max_position_embeddings=int(need("original_max_position_embeddings")),
    )


def check_tensors(
    path: Path,
    found: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[int, ...]],
    ignored: str,
) -> None:
    """Compares names and shapes of tensors; `ignored` is a regular expression of others allowed.

    Raises InputError, naming the tensor, where one is missing, unexpected or of another shape.
    """
    unexpected = found.keys() - expected.keys()
    for kind, wrong in (
        ("lacks", expected.keys() - found.keys()),
        ("unexpectedly has", {name for name in unexpected if not re.search(ignored, name)}),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise InputError(
                f"{path}: {kind} tensor {min(wrong)}{more}; weights and configuration do not match"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"{path}: tensor {name} has shape {found[name]}, the configuration says {shape}"
            )


def open_weights(
    directory: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str, tuple[slice, ...]], np.ndarray]]:
    """The shapes of the tensors in a directory, and a function that reads a slice as stored."""
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
        if not isinstance(file_of, dict) or {type(name) for name in file_of.values()} != {str}:
            raise InputError(f"{directory / INDEX}: holds no weight_map of file names")
        files = {name: opened(directory / name) for name in sorted(set(file_of.values()))}
        _check_disjoint(directory, file_of, files)
    elif (directory / "model.safetensors").is_file():
        name = "model.safetensors"
        files = {name: opened(directory / name)}
        file_of = dict.fromkeys(files[name].keys(), name)
    else:
        raise InputError(
            f"{directory}: holds no model.safetensors and no {INDEX}; other formats (such as"
            " pytorch_model.bin, a pickle) are not read, convert them to safetensors"
        )

    def sliceable(tensor: str) -> Any:
        try:
            return files[file_of[tensor]].get_slice(tensor)
        except SafetensorError as error:
            path = directory / file_of[tensor]
            raise InputError(f"{path}: tensor {tensor} cannot be read ({error})") from error

    def read(tensor: str, index: tuple[slice, ...]) -> np.ndarray:
        stored = sliceable(tensor)
        if stored.get_dtype() not in FLOATS:
            raise InputError(
                f"{directory / file_of[tensor]}: tensor {tensor} has {stored.get_dtype()} values; "
                f"quantised weights are not supported, only {', '.join(FLOATS)}"
            )
        return stored[index]

    return {tensor: tuple(sliceable(tensor).get_shape()) for tensor in file_of}, read


def _check_disjoint(directory: Path, file_of: dict[str, str], files: dict[str, Any]) -> None:
    """Raises InputError for a tensor that lies in another file than the index says."""
    for name, file in files.items():
        for tensor in file.keys():
            if file_of.get(tensor, name) != name:
                raise InputError(
                    f"{directory / name}: holds tensor {tensor}, which {INDEX} says is in "
                    f"{file_of[tensor]}; files of different checkpoints are mixed, fetch all again"
                )
