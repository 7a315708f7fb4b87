"""Reads models from GGUF files, llama.cpp's format, with the `gguf` package."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import gemma, gguf_rope
from paretohqd_jax.models.fields import need_integer, need_number, read_integer
from paretohqd_jax.models.llama_config import LlamaConfig, config_at
from paretohqd_jax.models.rope_scaling import read_scaling

GEMMAS = ("gemma2", "gemma3")
ARCHITECTURES = ("llama", "qwen2", "qwen3", *GEMMAS)
# llama.cpp's names and Hugging Face's, which the rest of the package speaks.
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA_NAMES = LAYER_NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
ALL = slice(None)


def read_metadata(path: Path) -> dict[str, Any]:
    """The file's key-value pairs, arrays as lists."""
    return {name: _contents(path, name) for name in _open(path).fields}


def read_config(path: Path) -> LlamaConfig:
    """The LlamaConfig of a GGUF file.

    Raises InputError, naming the file and what it asks for, where the model is not served here.
    """
    fields = _open(path).fields
    name = "general.architecture"
    family = _contents(path, name) if name in fields else None
    if family not in ARCHITECTURES:
        raise InputError(
            f"{path}: architecture {family!r} is not supported in GGUF files;"
            f" {', '.join(ARCHITECTURES)} are"
        )
    values = {key: _contents(path, key) for key in fields if key.startswith(f"{family}.")}
    tensors = {tensor.name: tensor for tensor in _open(path).tensors}
    split = {key: _contents(path, key) for key in ("split.count",) if key in fields}
    parts = read_integer(path, split, "split.count", least=0)
    if parts and parts > 1:
        raise InputError(
            f"{path}: is one of {parts} parts; make them one file (llama-gguf-split"
            " --merge FIRST_PART NEW.gguf)"
        )
    if "token_embd.weight" not in tensors:
        raise InputError(f"{path}: lacks tensor token_embd.weight")
    if family not in GEMMAS and values.get(f"{family}.attention.sliding_window"):
        raise InputError(
            f"{path}: a sliding window in GGUF files is not supported; use the model's safetensors"
        )
    need = functools.partial(need_integer, path, values)
    num_heads = need(f"{family}.attention.head_count")
    hidden_size = need(f"{family}.embedding_length")
    context = need(f"{family}.context_length")
    head_dim = need(f"{family}.attention.key_length", hidden_size // num_heads)
    if need(f"{family}.rope.dimension_count", head_dim) != head_dim:
        raise InputError(
            f"{path}: {family}.rope.dimension_count is not the size of a head, {head_dim}; RoPE on"
            " a part of each head is not supported"
        )
    of_rope = [tensor for name, tensor in tensors.items() if name in gguf_rope.TENSORS]
    divisors = {tensor.name: _dequantised(path, tensor).tolist() for tensor in of_rope}
    rope = gguf_rope.rope_words(path, values, family, divisors)
    return config_at(
        path,
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),
        hidden_size=hidden_size,
        intermediate_size=need(f"{family}.feed_forward_length"),
        num_layers=need(f"{family}.block_count"),
        num_heads=num_heads,
        num_kv_heads=need(f"{family}.attention.head_count_kv", num_heads),
        head_dim=head_dim,
        max_position_embeddings=context,
        rope_theta=need_number(path, values, f"{family}.rope.freq_base", 10000.0),
        rope_scaling=read_scaling(path, rope, context),
        rms_norm_eps=need_number(path, values, f"{family}.attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
        biased=("q_proj", "k_proj", "v_proj") if family == "qwen2" else (),
        qk_norm=family in ("qwen3", "gemma3"),
        **(gemma.fields_of_gguf(path, values, family) if family in GEMMAS else {}),
    )


def open_weights(
    path: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str, tuple[slice, ...]], np.ndarray]]:
    """Shapes of the tensors in a file by Hugging Face's names; a function that reads a slice.

    Slices are float32; the rows that are asked for are dequantised, no others.
    """
    config = read_config(path)
    family = _contents(path, "general.architecture")
    names = GEMMA_NAMES if family in GEMMAS else LAYER_NAMES
    permuted = family == "llama"
    tensors = {
        _huggingface_name(tensor.name, names): tensor
        for tensor in _open(path).tensors
        if tensor.name not in gguf_rope.TENSORS
    }

    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        tensor = tensors[name]
        rows: slice | np.ndarray = index[0]
        if permuted and ".q_proj." in name:
            rows = _stored_rows(len(tensor.data), config.num_heads)[rows]
        if permuted and ".k_proj." in name:
            rows = _stored_rows(len(tensor.data), config.num_kv_heads)[rows]
        array = _dequantised(path, tensor, rows)
        if config.zero_centred_norms and name.endswith("norm.weight"):
            array = array - 1.0  # llama.cpp keeps what norms multiply by
        return array[(slice(None), *index[1:])]

    shapes = {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in tensors.items()}
    return shapes, read


def _dequantised(path: Path, tensor: Any, rows: slice | np.ndarray = ALL) -> np.ndarray:
    import gguf

    try:
        return gguf.dequantize(tensor.data[rows], tensor.tensor_type)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise InputError(f"{path}: tensor {tensor.name} has unsupported type {kind}") from error


def _stored_rows(num_rows: int, num_heads: int) -> np.ndarray:
    """Where llama.cpp keeps each row of q or k: it reorders them, to rotate neighbours as pairs."""
    pairs = np.arange(num_rows).reshape(num_heads, num_rows // num_heads // 2, 2)
    return pairs.swapaxes(1, 2).reshape(num_rows)


def _huggingface_name(name: str, names: dict[str, str]) -> str:
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in names:
        return f"model.layers.{parts[1]}.{names[parts[2]]}.{parts[3]}"
    return name  # unknown: reported as unexpected by the caller


def _contents(path: Path, name: str) -> Any:
    """The value of a field that the file has."""
    try:
        return _open(path).fields[name].contents()
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: field {name!r} is damaged ({error})") from error


def _open(path: Path) -> Any:
    return _open_version(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _open_version(path: Path, _modified: int) -> Any:
    """A reader on the file; kept, for parsing a large vocabulary takes seconds."""
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged or cut off ({reason}); fetch the file again") from error
