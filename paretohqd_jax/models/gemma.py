"""What the checkpoints of Gemma 2 and 3 say that others do not, in config.json and in GGUF."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.fields import need_integer, need_number, read_number

FAMILIES = ("gemma2", "gemma3_text")
# Models that see, of which the text part is served: where transformers keeps its layers.
SEEING, SEEING_ARCHITECTURE = "gemma3", "Gemma3ForConditionalGeneration"
SEEING_BACKBONE = "model.language_model"
# What transformers' classes say where config.json is silent.
COMMON = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma2": COMMON | {
        "vocab_size": 256000, "max_position_embeddings": 8192, "sliding_window_pattern": 2,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    "gemma3_text": COMMON | {
        "vocab_size": 262208, "max_position_embeddings": 131072, "sliding_window_pattern": 6,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    },
}  # fmt: skip
# Layers of the two models whose scale of queries llama.cpp does not take from the size of heads.
LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
ALWAYS = {
    "activation": "gelu_pytorch_tanh",
    "scaled_embedding": True,
    "zero_centred_norms": True,
    "norms_after": True,
}


def text_part(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The config.json at `path` of a model that sees, as that of its text part alone."""
    if values.get("architectures") not in (None, [SEEING_ARCHITECTURE]):
        raise InputError(
            f"{path}: architecture {values['architectures']!r} is not supported; of {SEEING!r}"
            f" models only {SEEING_ARCHITECTURE} is"
        )
    part = values.get("text_config")
    if not isinstance(part, dict):
        raise InputError(f"{path}: field 'text_config' is missing or no JSON object")
    kind = f"{SEEING}_text"
    if part.get("model_type") not in (None, kind):
        raise InputError(f"{path}: text_config has model_type {part['model_type']!r}, not {kind!r}")
    shared = ("dtype", "torch_dtype", "eos_token_id", "tie_word_embeddings", "quantization_config")
    outer = {name: values[name] for name in shared if values.get(name) is not None}
    return part | outer | {"model_type": kind}


def fields_of_json(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `LlamaConfig` by the config.json at `path`, a default in place of what is absent.

    The soft cap on scores is Gemma 2's alone: transformers does not read it for Gemma 3.
    """
    if values.get("use_bidirectional_attention"):
        raise InputError(f"{path}: use_bidirectional_attention is not supported")

    caps_scores = values["model_type"] == "gemma2"
    cap = functools.partial(read_number, path, values)
    return ALWAYS | {
        "query_pre_attn_scalar": need_integer(path, values, "query_pre_attn_scalar"),
        "attention_soft_cap": cap("attn_logit_softcapping") if caps_scores else None,
        "logit_soft_cap": cap("final_logit_softcapping"),
    }


def fields_of_gguf(path: Path, values: dict[str, Any], family: str) -> dict[str, Any]:
    """Fields of `LlamaConfig` by the metadata of a GGUF file; as llama.cpp reads it.

    `family` is the file's architecture, gemma2 or gemma3.
    """
    need = functools.partial(need_integer, path, values)
    num_layers, scalar = need(f"{family}.block_count"), need(f"{family}.attention.key_length")
    if num_layers == LAYERS_OF_27B[family]:
        scalar = need(f"{family}.embedding_length") // need(f"{family}.attention.head_count")
    default = 2 if family == "gemma2" else 6
    period = need(f"{family}.attention.sliding_window_pattern", default)
    fields = ALWAYS | {
        "query_pre_attn_scalar": scalar,
        "sliding_window": need(f"{family}.attention.sliding_window"),
        "unwindowed_layers": tuple(range(period - 1, num_layers, period)),
    }
    if family == "gemma2":
        return fields | {
            "attention_soft_cap": need_number(path, values, "gemma2.attn_logit_softcapping", 50.0),
            "logit_soft_cap": need_number(path, values, "gemma2.final_logit_softcapping", 30.0),
        }
    return fields | {
        "local_rope_theta": need_number(path, values, "gemma3.rope.freq_base_swa", 10000.0),
        "logit_soft_cap": read_number(path, values, "gemma3.final_logit_softcapping", True),
    }
