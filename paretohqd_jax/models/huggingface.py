"""Model directories in Hugging Face's layout: the hub's snapshots, and what config.json says."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import gemma
from paretohqd_jax.models.fields import (
    need_integer,
    need_number,
    read_flag,
    read_integer,
    without_nulls,
)
from paretohqd_jax.models.llama_config import LlamaConfig, config_at
from paretohqd_jax.models.rope_scaling import RopeScaling, read_scaling

CHAT_TEMPLATE = "chat_template.jinja"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")  # the last two are of tokenizers
# The families served, by model_type; all run in the one module of `llama`.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
SLIDING, FULL = "sliding_attention", "full_attention"  # words of layer_types
# What transformers' classes say where config.json is silent.
WINDOWED = {"sliding_window": 4096, "max_window_layers": 28}
QWEN = WINDOWED | {"max_position_embeddings": 32768, "num_key_value_heads": 32}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": WINDOWED | {"max_position_embeddings": 131072, "num_key_value_heads": 8},
    "qwen2": QWEN,
    "qwen3": QWEN | {"head_dim": 128},
    **gemma.DEFAULTS,
}
# Fields whose null is no default: no window, no cap, as many key/value heads as there are heads.
TOLD_BY_NULL = (
    "sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "num_key_value_heads",
)  # fmt: skip


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
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; is this a model directory?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object")
    return value


def read_config(directory: Path) -> LlamaConfig:
    """The LlamaConfig of a directory's config.json, as transformers 4 or 5 writes it.

    Raises InputError, naming the file and what it asks for, where the model is not served here.
    """
    path = directory / "config.json"
    return parse_config(path, read_json(path))


def parse_config(path: Path, values: dict[str, Any]) -> LlamaConfig:
    """The LlamaConfig of the values read from a config.json at `path`, as `read_config`."""
    seeing = values.get("model_type") == gemma.SEEING
    if seeing:
        values = gemma.text_part(path, values)
    _refuse_other_models(path, values)
    family = values["model_type"]
    values = DEFAULTS[family] | without_nulls(values, TOLD_BY_NULL)
    need = functools.partial(need_integer, path, values)
    num_heads, hidden_size, num_layers, context = (
        need(field)
        for field in (
            "num_attention_heads", "hidden_size", "num_hidden_layers", "max_position_embeddings"
        )
    )  # fmt: skip
    read_rope = _rope_by_layers if family == "gemma3_text" else _rope
    theta, scaling, *local_theta = read_rope(path, values, context)
    window, unwindowed_layers = _windows(path, values, num_layers)
    return config_at(
        path,
        vocab_size=need("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=need("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=need("num_key_value_heads", num_heads),
        head_dim=need("head_dim", hidden_size // num_heads),
        max_position_embeddings=context,
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=need_number(path, values, "rms_norm_eps", 1e-6),
        tie_word_embeddings=read_flag(path, values, "tie_word_embeddings"),
        biased=_biased(path, values),
        qk_norm=family in ("qwen3", "gemma3_text"),
        sliding_window=window,
        unwindowed_layers=unwindowed_layers,
        local_rope_theta=local_theta[0] if local_theta and window else None,
        **(gemma.fields_of_json(path, values) if family in gemma.FAMILIES else {}),
        backbone=gemma.SEEING_BACKBONE if seeing else "model",
    )


def _refuse_other_models(path: Path, values: dict[str, Any]) -> None:
    family = values.get("model_type")
    if not isinstance(family, str):
        raise InputError(f"{path}: field 'model_type' is missing; it should say which model it is")
    served = ", ".join([*ARCHITECTURES, gemma.SEEING])
    if family not in ARCHITECTURES:
        raise InputError(f"{path}: architecture {family!r} is not supported; {served} are")
    whole = ARCHITECTURES[family]
    # As saved by AutoModel; the head is the embeddings.
    bare = whole.replace("ForCausalLM", "TextModel" if family == "gemma3_text" else "Model")
    architectures = values.get("architectures") or [whole]
    if architectures not in ([whole], [bare]):
        raise InputError(
            f"{path}: architecture {architectures!r} is not supported; of {family!r}"
            f" models only {whole} is"
        )
    is_gemma = family in gemma.FAMILIES
    field = "hidden_activation" if is_gemma else "hidden_act"
    served = "gelu_pytorch_tanh" if is_gemma else "silu"
    if values.get(field) not in (None, served):
        raise InputError(f"{path}: {field} {values[field]!r} is not supported; only {served}")
    if values.get("quantization_config"):
        raise InputError(f"{path}: models with quantization_config are not supported")
    if need_number(path, values, "partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"{path}: a partial_rotary_factor is not supported")


def _biased(path: Path, values: dict[str, Any]) -> tuple[str, ...]:
    """The projections with a bias: always three in Qwen2; in others, as the file says, or none."""
    family = values["model_type"]
    if family == "qwen2":
        return ("q_proj", "k_proj", "v_proj")
    names: tuple[str, ...] = ()
    if family in ("llama", "qwen3", *gemma.FAMILIES) and read_flag(path, values, "attention_bias"):
        names += ("q_proj", "k_proj", "v_proj", "o_proj")
    if family == "llama" and read_flag(path, values, "mlp_bias"):
        names += ("gate_proj", "up_proj", "down_proj")
    return names


def _windows(
    path: Path, values: dict[str, Any], num_layers: int
) -> tuple[int | None, tuple[int, ...]]:
    """The sliding window, None if no layer has one, and the layers without it."""
    family, layers = values["model_type"], range(num_layers)
    size, first = (read_integer(path, values, field, least=0) for field in WINDOWED)
    window, unwindowed = None, tuple(layers)
    if family in ("mistral", *gemma.FAMILIES):
        window = size
        unwindowed = () if window else unwindowed
    elif family in ("qwen2", "qwen3") and read_flag(path, values, "use_sliding_window"):
        window = size
        unwindowed = tuple(layers[:first])
    types = values.get("layer_types")
    if types is None and family in gemma.FAMILIES:
        period = need_integer(path, values, "sliding_window_pattern")
        types = [FULL if layer % period == period - 1 else SLIDING for layer in layers]
    if types is not None:
        if not isinstance(types, list):
            raise InputError(f"{path}: layer_types is {types!r}; it must be a list of kinds")
        for kind in types:
            if kind not in (FULL, SLIDING):
                raise InputError(f"{path}: layer type {kind!r} is not supported")
        listed = tuple(layer for layer, kind in enumerate(types) if kind == FULL)
        fixed = family in ("llama", "mistral") and listed != unwindowed
        if len(types) != num_layers or fixed or (len(listed) < num_layers and not window):
            raise InputError(
                f"{path}: layer_types do not fit the other fields (model_type {family!r},"
                f" {num_layers} layers, sliding window {window})"
            )
        unwindowed = listed
    return (None, ()) if len(unwindowed) == num_layers else (window, unwindowed)


def _rope(path: Path, values: dict[str, Any], context: int) -> tuple[float, RopeScaling | None]:
    """The base and the scaling of RoPE.

    transformers 5 keeps all of it in rope_parameters, 4 spread it over rope_theta and rope_scaling.
    Where both are given rope_scaling is the one that counts, there and here; what the other says
    besides is refused, for there it would be lost without a word.
    """
    given = {name: _rope_fields(path, values, name) for name in ("rope_parameters", "rope_scaling")}
    newer, older = given.values()
    theta = need_number(path, values, "rope_theta", 10000.0)
    rope = {"rope_theta": theta} | (older or newer)
    for name, value in newer.items() if older else ():
        if rope.get(name) != value and (name, value) != ("rope_type", "default"):
            raise InputError(
                f"{path}: rope_parameters has {name} {value!r}, which rope_scaling beside it makes "
                f"{rope.get(name)!r}; put all of them into one of the two"
            )
    original = "original_max_position_embeddings"
    if values.get(original) is not None:  # beside them, as Phi-3 has it
        rope[original] = values[original]
    return need_number(path, rope, "rope_theta"), read_scaling(path, rope, context)


def _rope_by_layers(
    path: Path, values: dict[str, Any], context: int
) -> tuple[float, RopeScaling | None, float]:
    """As `_rope`, and the base of the layers with a window, which is never scaled.

    transformers 5 keeps both in rope_parameters, by the kind of layer; 4 had rope_local_base_freq.
    """
    given = values.get("rope_parameters") or {}
    kinds = (FULL, SLIDING)
    if not isinstance(given, dict) or given.keys() - set(kinds):
        raise InputError(f"{path}: rope_parameters must be given for {' and '.join(kinds)}")
    full, local = (values | {"rope_parameters": given.get(kind)} for kind in kinds)
    base = need_number(path, values, "rope_local_base_freq")
    local |= {"rope_theta": base, "rope_scaling": None}
    local_theta, local_scaling = _rope(path, local, context)
    if local_scaling is not None:
        raise InputError(f"{path}: scaled RoPE in layers with {SLIDING} is not supported")
    return *_rope(path, full, context), local_theta


def _rope_fields(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    """What a field about RoPE holds that is not null, its type under the newer word."""
    fields = values.get(name) or {}
    if not isinstance(fields, dict):
        raise InputError(f"{path}: its RoPE parameters are no JSON object ({name})")
    fields = without_nulls(fields)
    if any(isinstance(value, dict) for value in fields.values()):
        raise InputError(f"{path}: {name} by kinds of layers ({min(fields)}) are not supported")
    return ({"rope_type": fields["type"]} if "type" in fields else {}) | fields
