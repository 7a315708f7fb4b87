"""Pretrained weights in, from wherever they lie (`sources` says where that may be)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import local_path
from paretohqd_jax.models import gguf, huggingface, shards
from paretohqd_jax.models.llama import LlamaConfig, init_params
from paretohqd_jax.models.sources import RANDOM_TOY, resolve_source

# Reads a slice of a tensor, given Hugging Face's name of it.
Reader = Callable[[str, tuple[slice, ...]], np.ndarray]
TOY_CONFIG = LlamaConfig(
    vocab_size=258,  # 256 bytes, <eos>, <pad>
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=512,
)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# What begins the names of a model without a head, and of the text part of one that sees.
BACKBONE = re.compile(
    r"^(model\.language_model\.|language_model\.model\.|model\.|)(?=(embed_tokens|layers|norm)\.)"
)
SEEING = r"^(model\.)?(vision_tower|multi_modal_projector)\."  # the part that is not served
ROWS_COMPARED = 4096
# Our names and Hugging Face's. Kernels are stored [out, in] there and [in, out] here.
KERNELS = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}


def load_config(
    source: str, dtype: str = "float32", remat: str = "none", num_layers: int | None = None
) -> LlamaConfig:
    """The model's configuration, without reading its weights; of its first `num_layers`, if given.

    Raises InputError, naming the source, where there is no such model or no such architecture here,
    or it has fewer layers.
    """
    if source == RANDOM_TOY:
        config = TOY_CONFIG
    else:
        path = resolve_source(source, weights=False)
        config = (huggingface if path.is_dir() else gguf).read_config(path)
    if num_layers is None:
        num_layers = config.num_layers
    if not 1 <= num_layers <= config.num_layers:
        raise InputError(f"{source}: has {config.num_layers} layers, not {num_layers} or more")
    return dataclasses.replace(config, dtype=dtype, remat=remat, num_layers=num_layers)


def load_pretrained(
    source: str,
    dtype: str = "float32",
    remat: str = "none",
    shardings: Any = None,
    num_layers: int | None = None,
) -> tuple[LlamaConfig, dict[str, Any]]:
    """The model's configuration and its weights, the collection `params` of `Llama`, in `dtype`.

    With `num_layers` only as many layers, the first, are read. With `shardings`, a tree like
    `llama.param_shapes`, weights go straight to their place: a host reads the parts of its own
    devices alone, and holds one part of one array besides.

    Raises InputError, naming file and tensor, for missing, unexpected, ill-shaped or truncated
    weights.
    """
    config = load_config(source, dtype, remat, num_layers)
    if source == RANDOM_TOY:
        params = init_params(jax.random.key(0), config, shardings)
        # With a head as small as that the final norm bounds the logits near 0: untrainable.
        return config, {**params, "lm_head": 20 * params["lm_head"]}
    return config, _assemble(open_tensors(source)[1], config, shardings)


def check_weights(source: str) -> None:
    """Raises InputError as `load_pretrained` for weights that lie here.

    Reads no more than headers, and a head that is stored beside the matrix it is tied to. What is
    still on the hub is checked when it has come.
    """
    if source.startswith("package:") or local_path(source):
        open_tensors(source)


def open_tensors(source: str) -> tuple[dict[str, tuple[int, ...]], Reader]:
    """Hugging Face's name and shape of every weight of a model, and a function that reads a slice.

    Raises InputError as `load_pretrained`.
    """
    config = load_config(source)
    if source == RANDOM_TOY:
        tensors = tensors_of(*load_pretrained(source))
        return _expected_shapes(config), lambda name, index: tensors[name][index]
    path = resolve_source(source)
    stored, read_stored = (shards if path.is_dir() else gguf).open_weights(path)
    name_of = _stored_names(path, stored, config)
    found = {name: stored[own] for name, own in name_of.items()}

    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        return read_stored(name_of[name], index)

    _check_tensors(path, found, config)
    if config.tie_word_embeddings and HEAD in found:
        _check_tied_head(path, found, read)
    return _expected_shapes(config), read


def _expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face's name and shape of every weight the model needs."""
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocab_size, config.hidden_size),
        "model.norm.weight": (config.hidden_size,),
    }
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocab_size, config.hidden_size)
    for layer in range(config.num_layers):
        for name, shape in layer_tensors(config).values():
            shapes[f"model.layers.{layer}.{name}"] = shape
    return shapes


def layer_tensors(config: LlamaConfig) -> dict[tuple[str, ...], tuple[str, tuple[int, ...]]]:
    """Our path of each weight of a layer -> Hugging Face's name and shape of it."""
    tensors = {}
    for name, size in config.norm_sizes().items():
        module = f"self_attn.{name}" if name in ("q_norm", "k_norm") else name
        tensors[(name,)] = (f"{module}.weight", (size,))
    for name, (size_in, size_out) in config.projection_shapes().items():
        tensors[(name, "kernel")] = (f"{KERNELS[name]}.weight", (size_out, size_in))
        if name in config.biased:
            tensors[(name, "bias")] = (f"{KERNELS[name]}.bias", (size_out,))
    return tensors


def _stored_names(path: Path, stored: Iterable[str], config: LlamaConfig) -> dict[str, str]:
    """Hugging Face's full name of each tensor -> its name in the checkpoint.

    AutoModel's checkpoints leave "model." out, those of models that see have the text part deeper,
    and a matrix that is embedding and head in one may be there under the head's name alone.
    """
    name_of: dict[str, str] = {}
    for own in stored:
        name = BACKBONE.sub("model.", own).removeprefix("language_model.")
        if name in name_of:
            raise InputError(
                f"{path}: holds tensors {name_of[name]} and {own}, which are the same one under "
                "two names; take one of them out"
            )
        name_of[name] = own
    if config.tie_word_embeddings and EMBEDDING not in name_of and HEAD in name_of:
        name_of[EMBEDDING] = name_of.pop(HEAD)
    return name_of


def _check_tensors(path: Path, found: dict[str, tuple[int, ...]], config: LlamaConfig) -> None:
    # Old checkpoints carry tables that follow from the configuration; a tied head may be repeated.
    ignored = r"rotary_emb\.inv_freq$"
    if config.backbone != "model":
        ignored += rf"|{SEEING}"
    if config.tie_word_embeddings:
        ignored += rf"|^{re.escape(HEAD)}$"
    shards.check_tensors(path, found, _expected_shapes(config), ignored)


def _check_tied_head(path: Path, found: dict[str, tuple[int, ...]], read: Reader) -> None:
    """Raises InputError for a head that is stored and is not the embedding it should be tied to."""

    def part(name: str, start: int) -> np.ndarray:
        stop = min(start + ROWS_COMPARED, len(rows))
        return read(name, (slice(start, stop), slice(None))).astype(np.float32)

    rows = range(found[EMBEDDING][0])
    if found[HEAD] != found[EMBEDDING] or not all(
        np.array_equal(part(HEAD, start), part(EMBEDDING, start)) for start in rows[::ROWS_COMPARED]
    ):
        raise InputError(
            f"{path}: tie_word_embeddings is true, but {HEAD} {found[HEAD]} is stored with other "
            f"values than {EMBEDDING} {found[EMBEDDING]}, and readers differ in which they take; "
            "set tie_word_embeddings to false in config.json to use it (as transformers 5 does), "
            f"or delete {HEAD} to use the embedding"
        )


def _assemble(read: Reader, config: LlamaConfig, shardings: Any) -> dict[str, Any]:
    """The parameter tree, each array put together from the slices of the tensors it consists of."""
    dtype = jnp.dtype(config.dtype)
    sharding_of = {} if shardings is None else traverse_util.flatten_dict(shardings)
    params: dict[tuple[str, ...], jax.Array] = {}

    def stack(path: tuple[str, ...], name: str, stored: tuple[int, ...]) -> None:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            layers = range(config.num_layers)[index[0]]
            sizes = [len(range(n)[own]) for n, own in zip(reversed(stored), index[1:], strict=True)]
            out = np.empty((len(layers), *sizes), dtype)
            for row, layer in enumerate(layers):
                out[row] = read(f"model.layers.{layer}.{name}", index[:0:-1]).T
            return out

        shape = (config.num_layers, *reversed(stored))
        params["layers", *path] = _placed(shape, sharding_of.get(("layers", *path)), part)

    def single(path: str, name: str) -> None:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            return read(name, index).astype(dtype)

        params[(path,)] = _placed(shapes[name], sharding_of.get((path,)), part)

    shapes = _expected_shapes(config)
    for path, tensor in layer_tensors(config).items():
        stack(path, *tensor)
    single("embed_tokens", EMBEDDING)
    single("norm", "model.norm.weight")
    if not config.tie_word_embeddings:
        single("lm_head", HEAD)
    return traverse_util.unflatten_dict(params)


def tensors_of(config: LlamaConfig, params: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parameter tree taken apart into Hugging Face's tensors, the inverse of `_assemble`."""
    tensors = {f"model.{name}.weight": params[name] for name in ("embed_tokens", "norm")}
    if not config.tie_word_embeddings:
        tensors[HEAD] = params["lm_head"]
    stacked = traverse_util.flatten_dict(params["layers"])
    for path, (name, _) in layer_tensors(config).items():
        for layer in range(config.num_layers):
            tensors[f"model.layers.{layer}.{name}"] = stacked[path][layer].T
    return jax.tree.map(np.asarray, tensors)


def _placed(
    shape: tuple[int, ...],
    sharding: jax.sharding.Sharding | None,
    part: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
    """An array whose parts are made and sent to their devices one after the other.

    (`jax.make_array_from_callback` would hold all parts of this host together.)
    """
    if sharding is None:
        return jnp.asarray(part((slice(None),) * len(shape)))
    devices_of: dict[str, list[jax.Device]] = {}
    indices = sharding.addressable_devices_indices_map(shape)
    for device, index in indices.items():
        devices_of.setdefault(str(index), []).append(device)
    arrays = []
    for devices in devices_of.values():
        piece = part(indices[devices[0]])
        arrays += jax.block_until_ready([jax.device_put(piece, device) for device in devices])
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)
