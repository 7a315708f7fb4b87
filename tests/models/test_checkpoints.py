"""Checkpoints as people have them: read as transformers and llama.cpp do, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_weights import edit_config, edit_tensors, message_of, stored_tensors, write_gguf

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import weights
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.merging import export_merged
from paretohqd_jax.models.rope_scaling import Linear, Llama3
from paretohqd_jax.models.weights import check_weights, load_config, load_pretrained

GOLDEN = Path(__file__).parent / "golden"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def copy_of(name, tmp_path):
    return shutil.copytree(GOLDEN / name, tmp_path / "model")


def assert_same_weights(source, other):
    (_, ours), (_, theirs) = load_pretrained(str(source)), load_pretrained(str(other))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# The head.


def divide(directory, names):
    """Moves the tensors of these names to a second shard; writes the index."""
    tensors = load_file(directory / "model.safetensors")
    second = {name: tensors.pop(name) for name in names}
    (directory / "model.safetensors").unlink()
    save_file(tensors, directory / "model-00001-of-00002.safetensors")
    save_file(second, directory / "model-00002-of-00002.safetensors")
    file_of = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    file_of |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    write_index(directory, file_of)


def write_index(directory, file_of, **others):
    index = {"metadata": {"total_size": 1}, "weight_map": file_of, **others}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_tied_head_that_is_stored_with_other_values_is_refused(tmp_path, monkeypatch, sharded):
    monkeypatch.setattr(weights, "ROWS_COMPARED", 40)  # of 96
    directory = copy_of("tied", tmp_path)
    embedding = load_file(directory / "model.safetensors")[EMBEDDING]
    head = embedding.copy()
    head[-1, -1] += 1
    edit_tensors(directory, lambda tensors: tensors.update({HEAD: head}))
    if sharded:
        divide(directory, [HEAD])
    with pytest.raises(InputError) as caught:  # before a run begins
        check_weights(str(directory))
    for word in ("tie_word_embeddings", HEAD, EMBEDDING, "to false"):
        assert word in str(caught.value)
    assert message_of(directory) == str(caught.value)
    edit_config(directory, tie_word_embeddings=False)  # the way out
    _, params = load_pretrained(str(directory))
    np.testing.assert_array_equal(params["lm_head"], head.astype(np.float32))


def test_a_tied_head_of_another_shape_is_refused(tmp_path):
    directory = copy_of("tied", tmp_path)
    edit_tensors(directory, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING][:-1].copy()}))
    assert "(95, 32)" in message_of(directory)


@pytest.mark.parametrize("dtype", [None, np.float32])
def test_a_tied_head_that_is_repeated_is_the_embedding(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(weights, "ROWS_COMPARED", 40)
    directory = copy_of("tied", tmp_path)
    edit_tensors(
        directory,
        lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].astype(dtype or "bfloat16")}),
    )
    assert_same_weights(directory, GOLDEN / "tied")


def test_a_tied_matrix_under_the_heads_name_alone(tmp_path):
    """As safetensors' save_model keeps shared tensors."""
    directory = copy_of("tied", tmp_path)
    edit_tensors(directory, lambda tensors: tensors.update({HEAD: tensors.pop(EMBEDDING)}))
    assert_same_weights(directory, GOLDEN / "tied")


@pytest.mark.parametrize("family", ["untied", "mistral", "qwen2", "qwen3"])
def test_where_the_file_does_not_say_heads_are_untied(tmp_path, family):
    directory = copy_of(family, tmp_path)
    edit_config(directory, tie_word_embeddings=None)
    assert_same_weights(directory, GOLDEN / family)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_gguf_has_a_head_of_its_own_or_the_embedding(tmp_path, name):
    config, _ = load_pretrained(str(GOLDEN / name))
    write_gguf(tmp_path / "model.GGUF", config, stored_tensors(name))  # the suffix in any case
    assert load_config(str(tmp_path / "model.GGUF")).tie_word_embeddings == (name == "tied")
    assert_same_weights(tmp_path / "model.GGUF", GOLDEN / name)


# Names.


def without_prefix(tensors):
    for name in [*tensors]:
        tensors[name.removeprefix("model.")] = tensors.pop(name)


@pytest.mark.parametrize("architecture", ["LlamaModel", "LlamaForCausalLM"])
def test_names_without_their_prefix(tmp_path, architecture):
    directory = copy_of("tied", tmp_path)
    edit_tensors(directory, without_prefix)
    edit_config(directory, architectures=[architecture])
    assert_same_weights(directory, GOLDEN / "tied")


def test_names_without_their_prefix_and_no_head(tmp_path):
    directory = copy_of("llama3", tmp_path)
    edit_tensors(directory, without_prefix)
    assert_same_weights(directory, GOLDEN / "llama3")
    edit_tensors(directory, lambda tensors: tensors.pop(HEAD))
    assert f"lacks tensor {HEAD}" in message_of(directory)


def test_a_tensor_under_both_names_is_refused(tmp_path):
    directory = copy_of("tied", tmp_path)
    edit_tensors(directory, lambda tensors: tensors.update({"norm.weight": np.ones(32, "float32")}))
    message = message_of(directory)
    assert "model.norm.weight" in message and " norm.weight" in message


def test_a_merged_model_names_a_class_with_a_head(tmp_path):
    directory = copy_of("tied", tmp_path)
    edit_tensors(directory, without_prefix)
    edit_config(directory, architectures=["LlamaModel"])
    config = load_config(str(directory))
    lora = LoraConfig(rank=1)
    adapter = jax.tree.map(lambda x: x[0], init_adapters(jax.random.key(0), config, lora, 1))
    merged = tmp_path / "merged"
    export_merged(merged, str(directory), adapter, lora, "float32")
    values = json.loads((merged / "config.json").read_text())
    assert values["architectures"] == ["LlamaForCausalLM"]
    assert_same_weights(merged, GOLDEN / "tied")


# RoPE.


def test_a_scaling_beside_rope_parameters_counts(tmp_path):
    directory = copy_of("untied", tmp_path)
    edit_config(directory, rope_scaling={"type": "su", "factor": 4.0, "rope_theta": 500.0})
    assert "'su' (factor 4.0)" in message_of(directory)
    edit_config(
        directory, rope_scaling={"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}
    )  # the original context, where none is named, is the model's
    config = load_config(str(directory))
    context = config.max_position_embeddings
    assert config.rope_theta == 500.0
    assert config.rope_scaling == Llama3(8.0, 1.0, 4.0, context)


@pytest.mark.parametrize(
    "changes, words",
    [
        # The base of rope_parameters would be lost: 10000 counts beside rope_scaling.
        ({"rope_scaling": {"type": "linear", "factor": 1.0}}, ["rope_theta", "500.0", "10000.0"]),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0},
          "rope_scaling": {"rope_type": "default"}}, ["rope_type", "'yarn'", "'default'"]),
        ({"rope_parameters": {"rope_type": "default", "type": "yarn", "factor": 4.0}},
         ["'default'", "'yarn'"]),
        ({"rope_parameters": {"type": "su", "factor": 4.0}}, ["'su'"]),
        ({"rope_parameters": {"rope_type": None, "type": "su"}}, ["'su'"]),
        ({"rope_parameters": {"factor": 4.0}}, ["factor of 4.0"]),
        ({"rope_parameters": {"rope_type": "default", "factor": 4.0}}, ["factor of 4.0"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["'factor' is missing"]),
        ({"rope_parameters": {"rope_type": "linear", "factor": "1.0"}}, ["'factor'", "'1.0'"]),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["full_attention"]),
        ({"rope_parameters": {"rope_theta": -1.0}}, ["rope_theta", "-1.0"]),
        ({"rope_parameters": {"rope_theta": float("inf")}}, ["rope_theta", "inf"]),
        ({"rope_parameters": {"rope_theta": True}}, ["rope_theta", "True"]),
        ({"rope_parameters": {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4.0}},
         ["high_freq_factor", "low_freq_factor"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor"]),
    ],
)  # fmt: skip
def test_rope_that_contradicts_itself_or_is_not_served(tmp_path, changes, words):
    directory = copy_of("untied", tmp_path)
    edit_config(directory, **changes)
    message = message_of(directory)
    for word in [*words, "config.json"]:
        assert word in message


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_theta": 500.0, "type": "linear", "factor": 1}},
        {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": None}},
        {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": {"factor": 1.0}},
        {"rope_scaling": {"type": "default", "rope_theta": 500}},
        {"rope_theta": 7.0},  # rope_parameters has its own
    ],
)
def test_rope_without_scaling(tmp_path, changes):
    directory = copy_of("untied", tmp_path)
    edit_config(directory, **changes)
    assert load_config(str(directory)) == load_config(str(GOLDEN / "untied"))


@pytest.mark.parametrize(
    "extra, scaling",
    [
        ({"llama.rope.scaling.factor": 4.0}, Linear(4.0)),
        ({"llama.rope.scale_linear": 4.0}, Linear(4.0)),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}, Linear(2.0)),
        ({"llama.rope.scaling.factor": 1.0}, None),
        ({"llama.rope.scale_linear": 1.0}, None),
        ({"llama.rope.scaling.factor": 0.0}, None),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}, None),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, None),
    ],
)
def test_rope_scaling_of_gguf_as_llama_cpp_reads_it(tmp_path, extra, scaling):
    path = tmp_path / "model.gguf"
    write_gguf(path, load_config(str(GOLDEN / "untied")), stored_tensors("untied"), extra=extra)
    assert load_config(str(path)).rope_scaling == scaling


@pytest.mark.parametrize(
    "extra, word",
    [
        ({"llama.attention.sliding_window": 20}, "sliding window"),
        ({"split.count": 2}, "one of 2 parts"),
        ({"llama.rope.freq_base": "1e4"}, "llama.rope.freq_base"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count"),
    ],
)
def test_gguf_metadata_that_is_not_served(tmp_path, extra, word):
    path = tmp_path / "model.gguf"
    config = load_config(str(GOLDEN / "untied"))
    if "llama.rope.freq_base" in extra:
        config = dataclasses.replace(config, rope_theta=1e4)
    write_gguf(path, config, stored_tensors("untied"), extra=extra)
    assert word in message_of(path)


# Other fields.


def test_fields_that_are_missing_have_the_familys_defaults(tmp_path):
    directory = copy_of("qwen3", tmp_path)
    edit_config(directory, head_dim=None, num_key_value_heads=None, num_attention_heads=32,
                max_position_embeddings=None)  # fmt: skip
    config = load_config(str(directory))
    assert (config.head_dim, config.num_kv_heads) == (128, 32)
    assert config.max_position_embeddings == 32768


@pytest.mark.parametrize(
    "name, changes, word",
    [
        ("untied", {"tie_word_embeddings": "false"}, "'tie_word_embeddings' is 'false'"),
        ("untied", {"attention_bias": 0}, "'attention_bias' is 0"),
        ("untied", {"num_key_value_heads": 0}, "'num_key_value_heads'"),
        ("untied", {"hidden_size": "32"}, "'hidden_size'"),
        ("untied", {"hidden_size": 32.0}, "32.0"),
        ("untied", {"rms_norm_eps": float("nan")}, "'rms_norm_eps'"),
        ("mistral", {"sliding_window": "20"}, "'sliding_window' is '20'"),
        ("qwen2", {"use_sliding_window": "no"}, "'use_sliding_window' is 'no'"),
        ("qwen2_windows", {"max_window_layers": "1"}, "'max_window_layers' is '1'"),
        ("qwen2_windows", {"max_window_layers": -1}, "'max_window_layers' is -1"),
        ("mistral", {"sliding_window": True}, "'sliding_window' is True"),
        ("qwen2_windows", {"layer_types": 3}, "layer_types is 3"),
        ("qwen3", {"architectures": "Qwen3ForCausalLM"}, "'Qwen3ForCausalLM'"),
        ("untied", {"model_type": "llava", "text_config": {"model_type": "llama"}}, "'llava'"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path, name, changes, word):
    directory = copy_of(name, tmp_path)
    edit_config(directory, **changes)
    message = message_of(directory)
    assert word in message and "config.json" in message


# Files.


def test_an_index_of_other_files_beside_a_single_file_is_refused(tmp_path):
    directory = copy_of("untied", tmp_path)
    shards = [load_file(file) for file in directory.glob("model-*.safetensors")]
    save_file({n: t for shard in shards for n, t in shard.items()}, directory / "model.safetensors")
    message = message_of(directory)
    assert "model.safetensors and model.safetensors.index.json" in message
    assert "model-00001-of-" in message and "delete" in message
    (directory / "model.safetensors.index.json").unlink()
    assert_same_weights(directory, GOLDEN / "untied")


def test_an_index_of_the_single_file_is_read(tmp_path):
    directory = copy_of("llama3", tmp_path)
    names = load_file(directory / "model.safetensors")
    write_index(directory, dict.fromkeys(names, "model.safetensors"))
    assert_same_weights(directory, GOLDEN / "llama3")


@pytest.mark.parametrize("place", ["../other", "/tmp/other", "a/../../other"])
def test_an_index_that_leaves_the_directory_is_refused(tmp_path, place):
    directory = copy_of("llama3", tmp_path)
    names = load_file(directory / "model.safetensors")
    shutil.move(directory / "model.safetensors", tmp_path / "other.safetensors")
    write_index(directory, dict.fromkeys(names, f"{place}.safetensors"))
    assert "outside the directory" in message_of(directory)


def test_shards_in_a_folder_and_of_mixed_types_are_read(tmp_path):
    directory = copy_of("llama3", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    (directory / "parts").mkdir()
    halves = {"parts/a.safetensors": {}, "b.safetensors": {}}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        kind = (np.float32, np.float64, ml_dtypes.bfloat16)[number % 3 if tensor.ndim == 1 else 0]
        halves[[*halves][number % 2]][name] = tensor.astype(kind)
    for file, half in halves.items():
        save_file(half, directory / file)
    write_index(directory, {name: file for file, half in halves.items() for name in half})
    _, params = load_pretrained(str(directory))
    _, expected = load_pretrained(str(GOLDEN / "llama3"))
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2**-8)


def test_a_tensor_that_the_index_does_not_know_counts(tmp_path):
    directory = copy_of("tied", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    divide(directory, [EMBEDDING])
    file = directory / "model-00002-of-00002.safetensors"
    save_file(load_file(file) | {HEAD: 2 * tensors[EMBEDDING]}, file)
    assert f"{HEAD} (96, 32) is stored with other values" in message_of(directory)
    save_file(load_file(file) | {"other": np.zeros(0, np.float32)}, file)
    assert "unexpectedly has tensor other" in message_of(directory)


def test_an_adapter_is_no_base_model(tmp_path):
    shutil.copytree(GOLDEN / "adapter", tmp_path / "adapter")
    message = message_of(tmp_path / "adapter")
    base = json.loads((GOLDEN / "adapter" / "adapter_config.json").read_text())
    assert "adapter_config.json" in message and "merge" in message
    assert repr(base["base_model_name_or_path"]) in message


def test_sources_may_begin_with_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    copy_of("tied", tmp_path)
    assert_same_weights("~/model", GOLDEN / "tied")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        check_weights("~/model")
