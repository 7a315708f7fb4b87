"""Weights from safetensors and GGUF files, and what is said of bad ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import LlamaConfig, logical_axes
from paretohqd_jax.models.rope_scaling import Llama3
from paretohqd_jax.models.weights import (
    KERNELS,
    RANDOM_TOY,
    check_weights,
    load_config,
    load_pretrained,
)
from paretohqd_jax.training.mesh import make_mesh, named_shardings

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a tiny checkpoint in one file, to be spoilt."""
    return shutil.copytree(GOLDEN / "llama3", tmp_path / "model")


def edit_config(directory, **changes):
    path = directory / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def edit_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def message_of(source):
    with pytest.raises(InputError) as caught:
        load_pretrained(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_configurations_of_both_transformers_generations():
    new = load_config(str(GOLDEN / "untied"))  # rope_parameters, transformers 5
    assert new.rope_theta == 500.0 and new.rope_scaling is None and not new.tie_word_embeddings
    old = load_config(str(GOLDEN / "llama3"))  # rope_theta and rope_scaling, transformers 4
    assert old.rope_theta == 50000.0
    assert old.rope_scaling == Llama3(8.0, 1.0, 4.0, 64)
    assert load_config(str(GOLDEN / "tied")).tie_word_embeddings
    assert load_config(str(GOLDEN / "tied"), "bfloat16", "full").remat == "full"


def test_sharded_weights_are_read_whole():
    assert (GOLDEN / "untied" / "model.safetensors.index.json").is_file()
    config, params = load_pretrained(str(GOLDEN / "untied"))
    stored = {}
    for file in (GOLDEN / "untied").glob("*.safetensors"):
        stored.update(load_file(file))
    for layer in range(config.num_layers):
        for name, theirs in KERNELS.items():
            tensor = stored.pop(f"model.layers.{layer}.{theirs}.weight")
            np.testing.assert_array_equal(params["layers"][name]["kernel"][layer], tensor.T)
    np.testing.assert_array_equal(params["lm_head"], stored["lm_head.weight"])


def test_dtype_of_the_weights():
    _, params = load_pretrained(str(GOLDEN / "tied"), dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    _, wide = load_pretrained(str(GOLDEN / "tied"))  # stored as bfloat16, so nothing is lost
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(one.astype("float32"), other)


def test_random_toy_is_always_the_same():
    (config, first), (_, second) = load_pretrained(RANDOM_TOY), load_pretrained(RANDOM_TOY)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert config.vocab_size == 258


def test_missing_tensor(checkpoint):
    edit_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    message = message_of(checkpoint)
    assert (
        "lacks tensor model.layers.1.mlp.up_proj.weight" in message and str(checkpoint) in message
    )


def test_unexpected_tensor(checkpoint):
    extra = {"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}
    edit_tensors(checkpoint, lambda tensors: tensors.update(extra))
    assert "unexpectedly has tensor model.layers.0.self_attn.q_proj.bias" in message_of(checkpoint)


def test_ill_shaped_tensor(checkpoint):
    edit_config(checkpoint, intermediate_size=64)
    message = message_of(checkpoint)
    assert "model.layers.0.mlp.gate_proj.weight" in message and "(48, 32)" in message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(checkpoint, share):
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = message_of(checkpoint)
    assert str(path) in message and "cut off" in message


def test_missing_shard(tmp_path):
    directory = shutil.copytree(GOLDEN / "untied", tmp_path / "model")
    shard = sorted(directory.glob("model-*.safetensors"))[0]
    shard.unlink()
    assert str(shard) in message_of(directory)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, ml_dtypes.float8_e4m3fn])
def test_quantised_weights_are_refused(checkpoint, dtype):
    name = "model.layers.1.self_attn.q_proj.weight"
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: tensors[name].astype(dtype)}))
    message = message_of(checkpoint)
    assert str(checkpoint / "model.safetensors") in message
    assert name in message and "quantised" in message


def test_a_shard_of_another_checkpoint(tmp_path):
    directory = shutil.copytree(GOLDEN / "untied", tmp_path / "model")
    first, *_, last = sorted(directory.glob("model-*.safetensors"))
    tensors = load_file(first)
    save_file({**load_file(last), **tensors}, last)
    message = message_of(directory)
    assert str(last) in message and min(tensors) in message and "mixed" in message


def test_an_index_that_names_no_files(tmp_path):
    directory = shutil.copytree(GOLDEN / "untied", tmp_path / "model")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": 1}}))
    assert str(index) in message_of(directory)


def test_pickles_are_not_read(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "safetensors" in message_of(checkpoint)


def test_weights_that_lie_here_are_checked_by_their_headers(checkpoint):
    check_weights(str(checkpoint))
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no model.safetensors"):
        check_weights(str(checkpoint))
    for elsewhere in ("org/name", RANDOM_TOY):  # on the hub; made up
        check_weights(elsewhere)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}, "'gemma'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"rope_scaling": {"rope_type": "mrope", "factor": 4.0}}, "'mrope'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"vocab_size": None}, "'vocab_size'"),
        ({"num_key_value_heads": 3}, "heads"),
        ({"head_dim": "8"}, "'head_dim'"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"num_attention_heads": 0}, "'num_attention_heads'"),
        ({"rope_theta": "10000"}, "'rope_theta'"),
        ({"rope_scaling": ["llama3"]}, "RoPE"),
    ],
)
def test_unsupported_configurations_are_refused_by_name(checkpoint, changes, word):
    edit_config(checkpoint, **changes)
    assert word in message_of(checkpoint)


def test_unreadable_configuration(checkpoint):
    (checkpoint / "config.json").write_text('{"model_type": ')
    assert "config.json" in message_of(checkpoint)
    (checkpoint / "config.json").unlink()
    assert "no such file" in message_of(checkpoint)


@pytest.mark.parametrize(
    "source, word",
    [
        ("no-such-model", "not found"),
        ("no/such/deep/path", "not found"),
        ("missing.gguf", "not found"),
        ("package:no_such_package/x.gguf", "pip install no-such-package"),
        ("package:paretohqd_jax/x.gguf", "'x.gguf'"),
        ("org/name", "'org/name'"),  # offline: the hub cannot be reached
    ],
)
def test_sources_that_do_not_exist(source, word):
    assert word in message_of(source)


def write_gguf(path, config: LlamaConfig, stored, architecture="llama", extra=()):
    """The checkpoint as llama.cpp would store it: other names, Llama's q and k rows permuted.

    `extra` are names and values of more metadata, texts or numbers.
    """
    import gguf

    from paretohqd_jax.models.gguf import GEMMA_NAMES, LAYER_NAMES, TOP_NAMES
    from paretohqd_jax.models.gguf_rope import TENSORS

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, value in dict(extra).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
        add[type(value)](name, value)
    names = GEMMA_NAMES if architecture.startswith("gemma") else LAYER_NAMES
    for theirs, name in [*TOP_NAMES.items(), *zip(TENSORS, TENSORS, strict=True)]:
        if name in stored:
            writer.add_tensor(theirs, stored[name])
    heads_of = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    modules = [(layer, theirs) for layer in range(config.num_layers) for theirs in names]
    for (layer, theirs), kind in itertools.product(modules, ("weight", "bias")):
        tensor = stored.get(f"model.layers.{layer}.{names[theirs]}.{kind}")
        if tensor is None:
            continue
        if theirs in heads_of and architecture == "llama":
            halves = tensor.reshape(heads_of[theirs], 2, config.head_dim // 2, -1)
            tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(f"blk.{layer}.{theirs}.{kind}", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored_tensors(name):
    tensors = {}
    for file in (GOLDEN / name).glob("*.safetensors"):
        tensors.update(load_file(file))
    return {tensor: array.astype(np.float32) for tensor, array in tensors.items()}


@pytest.fixture
def stored():
    return stored_tensors("untied")


@pytest.mark.parametrize(
    "name, architecture", [("untied", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3")]
)
def test_gguf_equals_safetensors(tmp_path, name, architecture):
    config, params = load_pretrained(str(GOLDEN / name))
    write_gguf(tmp_path / "model.gguf", config, stored_tensors(name), architecture)
    from_gguf, same = load_pretrained(str(tmp_path / "model.gguf"))
    assert dataclasses.replace(from_gguf, rms_norm_eps=config.rms_norm_eps) == config
    np.testing.assert_allclose(from_gguf.rms_norm_eps, config.rms_norm_eps)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    sizes = (1, 4, 2) if jax.device_count() == 8 else (-1, 1, 1)
    shardings = named_shardings(make_mesh(*sizes), logical_axes(config), params)
    _, parts = load_pretrained(str(tmp_path / "model.gguf"), shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, parts, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, parts) == shardings


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_gguf(tmp_path, stored, share):
    path = tmp_path / "model.gguf"
    write_gguf(path, load_config(str(GOLDEN / "untied")), stored)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = message_of(path)
    assert str(path) in message and "cut off" in message


def test_gguf_of_another_architecture(tmp_path, stored):
    path = tmp_path / "model.gguf"
    write_gguf(path, load_config(str(GOLDEN / "untied")), stored, architecture="gemma")
    assert "'gemma'" in message_of(path)


def test_k_quants_have_the_values_that_ggml_gives_them(tmp_path):
    """Whole tensors and slices; the rows of q, which llama.cpp reorders, in their own order."""
    import gguf

    from paretohqd_jax.models.gguf import open_weights

    golden = np.load(GOLDEN / "k_quants.npz")
    config = LlamaConfig(8, 256, 256, 1, 2, 2, 128, 64)
    path, writer = tmp_path / "model.gguf", gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(2)
    writer.add_key_length(4)  # of 8 rows of q
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tensors = {
        "token_embd.weight": ("Q4_K", "model.embed_tokens.weight"),
        "blk.0.ffn_gate.weight": ("Q5_K", "model.layers.0.mlp.gate_proj.weight"),
        "blk.0.ffn_down.weight": ("Q6_K", "model.layers.0.mlp.down_proj.weight"),
        "blk.0.attn_q.weight": ("Q4_K", "model.layers.0.self_attn.q_proj.weight"),
    }
    for name, (kind, _) in tensors.items():
        blocks = golden[f"{kind}_blocks"]
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shapes, read = open_weights(path)
    for kind, name in tensors.values():
        values = golden[f"{kind}_values"]
        if "q_proj" in name:  # of each head first one half of its pairs, then the other
            values = values[[0, 2, 1, 3, 4, 6, 5, 7]]
        assert shapes[name] == values.shape
        np.testing.assert_allclose(read(name, (slice(None), slice(None))), values, rtol=1e-6)
        part = slice(2, 7), slice(100, 140)
        np.testing.assert_allclose(read(name, part), values[part], rtol=1e-6)
