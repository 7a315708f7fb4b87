"""What Gemma's checkpoints have that others' have not: two RoPEs, a text part, 1 + w in GGUF."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_weights import edit_config, edit_tensors, message_of, stored_tensors, write_gguf

from paretohqd_jax.models.gemma import fields_of_gguf
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.merging import config_values, export_merged
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.rope_scaling import Linear
from paretohqd_jax.models.weights import load_config, load_pretrained

GOLDEN = Path(__file__).parent / "golden" / "gemma3"
SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.fixture
def checkpoint(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "model")


def assert_same_weights(source, other):
    (_, ours), (_, theirs) = load_pretrained(str(source)), load_pretrained(str(other))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_fields_of_the_golden_checkpoint():
    config = load_config(str(GOLDEN))
    assert (config.sliding_window, config.unwindowed_layers) == (20, (1,))
    assert (config.rope_theta, config.local_rope_theta) == (5000.0, 300.0)
    assert config.rope_scaling == Linear(4.0) and config.tie_word_embeddings
    assert config.attention_scale == 10**-0.5
    assert list(config.layer_rotations()) == [1, 0, 1]


def test_what_config_json_leaves_out_is_as_in_gemma_3_4b(checkpoint):
    """The text part of the published 4B model says no more than this."""
    values = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "vision_config": {"model_type": "siglip_vision_model"},
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    }  # fmt: skip
    (checkpoint / "config.json").write_text(json.dumps(values))
    config = load_config(str(checkpoint))
    assert (config.vocab_size, config.num_heads, config.num_kv_heads) == (262208, 8, 4)
    assert config.head_dim == 256 and config.max_position_embeddings == 131072
    assert config.unwindowed_layers == (5, 11, 17, 23, 29)
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)
    assert config.rope_scaling == Linear(8.0) and config.tie_word_embeddings


def test_configurations_of_transformers_5(checkpoint):
    kinds = {
        FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 300.0},
    }
    edit_config(
        checkpoint, rope_parameters=kinds, layer_types=[SLIDING, FULL, SLIDING], rope_theta=None,
        rope_scaling=None, rope_local_base_freq=None, sliding_window_pattern=None,
    )  # fmt: skip
    assert load_config(str(checkpoint)) == load_config(str(GOLDEN))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"final_logit_softcapping": -1.0}, ["final_logit_softcapping", "-1.0"]),
        ({"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ({"hidden_activation": "gelu"}, ["'gelu'", "gelu_pytorch_tanh"]),
        ({"rope_parameters": {"rope_theta": 1e6}}, ["rope_parameters", FULL, SLIDING]),
        ({"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}}}, ["scaled RoPE"]),
        ({"sliding_window": 0}, ["layer_types", "window 0"]),
        ({"model_type": "gemma3", "architectures": None}, ["text_config"]),
        ({"model_type": "gemma3"}, ["Gemma3ForConditionalGeneration"]),
        ({"model_type": "gemma3n"}, ["'gemma3n'", "gemma2, gemma3_text, gemma3"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["'yarn'", "base of their own"]),
    ],
)
def test_what_is_not_served_is_refused_by_name(checkpoint, changes, words):
    edit_config(checkpoint, **changes)
    for word in words:
        assert word in message_of(checkpoint)


def with_vision(directory, name_of):
    """The checkpoint as one that sees as well."""

    def change(tensors):
        for name in [*tensors]:
            tensors[name_of(name)] = tensors.pop(name)
        outer = "model." if name_of("model.").startswith("model.") else ""
        tensors[f"{outer}vision_tower.post_layernorm.bias"] = np.zeros(3, np.float32)
        tensors[f"{outer}multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(2, np.float32)

    edit_tensors(directory, change)
    text = json.loads((directory / "config.json").read_text())
    values = {
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [1, 2], "text_config": text,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("backbone", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_model_that_sees(checkpoint, tmp_path, backbone):
    """Under the names that are published, and those that modules of transformers 5 have."""
    with_vision(checkpoint, lambda name: name.replace("model.", backbone, 1))
    config = load_config(str(checkpoint))
    assert config == dataclasses.replace(load_config(str(GOLDEN)), backbone="model.language_model")
    assert_same_weights(checkpoint, GOLDEN)

    lora = LoraConfig(rank=1, targets=("q_proj",))
    adapter = jax.tree.map(lambda x: x[0], init_adapters(jax.random.key(0), config, lora, 1))
    export_peft(tmp_path / "adapter", adapter, lora, config, str(checkpoint))
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    module = "model.language_model.layers.0.self_attn.q_proj"  # as make_gemma.py prints it
    assert f"base_model.model.{module}.lora_A.weight" in names

    export_merged(tmp_path / "merged", str(checkpoint), adapter, lora, "float32")
    values = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert values["architectures"] == ["Gemma3ForCausalLM"] and values["eos_token_id"] == [1, 2]
    assert_same_weights(tmp_path / "merged", GOLDEN)


def assert_survives_gguf(tmp_path, name, config, params, extra):
    """GGUF keeps what norms multiply by, 1 + w; and out again, as config.json."""
    path, stored = tmp_path / "model.gguf", stored_tensors(name)
    stored |= {name: x + 1 for name, x in stored.items() if name.endswith("norm.weight")}
    write_gguf(path, config, stored, name, extra)
    found, same = load_pretrained(str(path))
    assert dataclasses.replace(found, rms_norm_eps=config.rms_norm_eps) == config
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-7), same, params)
    shutil.copytree(GOLDEN.parent / name, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text(json.dumps(config_values(found)))
    assert load_config(str(tmp_path / "out")) == found


@pytest.mark.parametrize("num_layers, scalar", [(46, 2304), (42, 256)])
def test_scale_of_queries_in_gguf(num_layers, scalar):
    """Of the 27B it is the hidden size over the heads, which llama.cpp knows by the layers."""
    values = {
        "gemma2.block_count": num_layers, "gemma2.embedding_length": 4608,
        "gemma2.attention.head_count": 2, "gemma2.attention.key_length": 256,
        "gemma2.attention.sliding_window": 4096,
    }  # fmt: skip
    fields = fields_of_gguf(Path("model.gguf"), values, "gemma2")
    assert fields["query_pre_attn_scalar"] == scalar
    assert (fields["attention_soft_cap"], fields["logit_soft_cap"]) == (50.0, 30.0)
    assert fields["unwindowed_layers"] == tuple(range(1, num_layers, 2))


def test_gguf_of_gemma_2(tmp_path):
    config, params = load_pretrained(str(GOLDEN.parent / "gemma2"))
    assert (config.attention_soft_cap, config.logit_soft_cap) == (2.0, 5.0)
    config = dataclasses.replace(config, query_pre_attn_scalar=16)
    extra = {
        "gemma2.attention.sliding_window": 20, "gemma2.attn_logit_softcapping": 2.0,
        "gemma2.final_logit_softcapping": 5.0,
    }  # fmt: skip
    assert_survives_gguf(tmp_path, "gemma2", config, params, extra)


def test_gguf_of_gemma_3(tmp_path):
    config, params = load_pretrained(str(GOLDEN))
    config = dataclasses.replace(config, query_pre_attn_scalar=16)  # llama.cpp's, but of 27B
    extra = {
        "gemma3.attention.sliding_window": 20, "gemma3.attention.sliding_window_pattern": 2,
        "gemma3.rope.freq_base_swa": 300.0, "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 4.0,
    }  # fmt: skip
    assert_survives_gguf(tmp_path, "gemma3", config, params, extra)
