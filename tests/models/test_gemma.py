"""What Gemma's checkpoints have that others' have not: two RoPEs, a text part, 1 + w in GGUF."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_weights import edit_config, edit_tensors, message_of, stored_tensors, write_gguf

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.gemma import fields_of_gguf
from paretohqd_jax.models.lora import TARGETS, LoraConfig, init_adapters
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


def check_hand_over(directory, checkpoint, config, lora, adapter):
    """Names as PEFT 0.21 and vLLM 0.32 look for them.

    PEFT: those of transformers' modules, which make_gemma.py prints, after base_model.model. vLLM
    turns the backbone's name into that of the published tensors.
    """
    export_peft(directory, adapter, lora, config, str(checkpoint))
    kernels = {name[1] for name in stored_projections()}
    names = load_file(directory / "adapter_model.safetensors")
    modules = {f"{config.backbone}.layers.{layer}.{kernel}"
               for layer in range(3) for kernel in kernels}  # fmt: skip
    factors = {"lora_A", "lora_B"}
    assert names.keys() == {
        f"base_model.model.{module}.{factor}.weight" for module in modules for factor in factors
    }
    told = json.loads((directory / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(checkpoint) and told["bias"] == "none"
    targets = told["target_modules"]
    vision = "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    if config.backbone == "model":
        assert targets == sorted(TARGETS)
        return
    assert all(re.fullmatch(targets, module) for module in modules)
    assert not re.fullmatch(targets, vision)
    in_vllm = {re.sub(r"^model\.language_model\.", "language_model.model.", x) for x in modules}
    assert in_vllm == {f"language_model.model.layers.{n}.{k}" for n, k in stored_projections()}


def stored_projections():
    """(layer, name) of every projection in the golden checkpoint."""
    found = [re.fullmatch(r"model\.layers\.(\d+)\.(.*_proj)\.weight", x)
             for x in load_file(GOLDEN / "model.safetensors")]  # fmt: skip
    return [match.groups() for match in found if match]


def test_adapters_of_the_text_model_have_the_names_of_its_tensors(tmp_path):
    config, lora = load_config(str(GOLDEN)), LoraConfig(rank=1, targets=TARGETS)
    adapter = jax.tree.map(lambda x: x[0], init_adapters(jax.random.key(0), config, lora, 1))
    check_hand_over(tmp_path, GOLDEN, config, lora, adapter)


@pytest.mark.parametrize("backbone", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_model_that_sees(checkpoint, tmp_path, backbone):
    """Under the names that are published, and those that modules of transformers 5 have."""
    with_vision(checkpoint, lambda name: name.replace("model.", backbone, 1))
    config = load_config(str(checkpoint))
    assert config == dataclasses.replace(load_config(str(GOLDEN)), backbone="model.language_model")
    assert_same_weights(checkpoint, GOLDEN)

    lora = LoraConfig(rank=1, targets=TARGETS)
    adapter = jax.tree.map(lambda x: x[0], init_adapters(jax.random.key(0), config, lora, 1))
    check_hand_over(tmp_path / "adapter", checkpoint, config, lora, adapter)
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


def fields_of(family, num_layers, **more):
    """Fields of a model whose heads have other sizes than the hidden size has room for."""
    values = {
        "block_count": num_layers, "embedding_length": 4608, "attention.head_count": 2,
        "attention.key_length": 256, "attention.sliding_window": 4096,
    } | more  # fmt: skip
    values = {f"{family}.{name}": value for name, value in values.items()}
    return fields_of_gguf(Path("model.gguf"), values, family)


@pytest.mark.parametrize(
    "family, num_layers, scalar",
    [("gemma2", 46, 2304), ("gemma2", 42, 256), ("gemma3", 62, 2304), ("gemma3", 48, 256)],
)
def test_scale_of_queries_in_gguf(family, num_layers, scalar):
    """Of the 27B it is the hidden size over the heads, which llama.cpp knows by the layers."""
    fields = fields_of(family, num_layers)
    assert fields["query_pre_attn_scalar"] == scalar
    period = {"gemma2": 2, "gemma3": 6}[family]
    assert fields["unwindowed_layers"] == tuple(range(period - 1, num_layers, period))


def test_caps_and_bases_in_gguf():
    """What llama.cpp takes where the file is silent, and what the file says."""
    caps, says = ("attention_soft_cap", "logit_soft_cap"), "final_logit_softcapping"
    fields = fields_of("gemma2", 42)
    assert [fields[cap] for cap in caps] == [50.0, 30.0]
    fields = fields_of("gemma2", 42, attn_logit_softcapping=9.0, final_logit_softcapping=8.0)
    assert [fields[cap] for cap in caps] == [9.0, 8.0]
    fields = fields_of("gemma3", 48)
    assert fields["logit_soft_cap"] is None and fields["local_rope_theta"] == 10000.0
    fields = fields_of("gemma3", 48, **{says: 30.0, "rope.freq_base_swa": 300.0})
    assert fields["logit_soft_cap"] == 30.0 and fields["local_rope_theta"] == 300.0
    assert fields_of("gemma3", 48, **{says: 0.0})["logit_soft_cap"] is None
    for family, cap in (("gemma3", math.nan), ("gemma3", -1.0), ("gemma3", "30"), ("gemma2", 0.0)):
        with pytest.raises(InputError, match=f"'{family}.{says}' is {cap!r}"):
            fields_of(family, 48, **{says: cap})


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
