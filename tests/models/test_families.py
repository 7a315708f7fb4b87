"""Every model family against the reference's stored logits; windows, biases and norms."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.cache import begin_rows, empty_cache, extend_rows
from paretohqd_jax.models.llama import (
    Llama,
    compute_logits,
    init_params,
    logical_axes,
    output_embedding,
)
from paretohqd_jax.models.lora import TARGETS, LoraConfig, init_adapters
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.weights import load_config, load_pretrained

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = [
    "untied", "llama3", "llama_biased", "mistral", "qwen2", "qwen2_windows", "qwen3", "gemma2",
    "gemma3",
]  # fmt: skip
WINDOWED = ["mistral", "qwen2_windows"]


@pytest.fixture(scope="module")
def golden():
    return {**np.load(GOLDEN / "families.npz"), **np.load(GOLDEN / "gemma.npz")}


def padded_rows(golden, side):
    """The golden rows as one batch, padded on one side with an ordinary token."""
    lengths = golden["lengths"]
    places = np.arange(lengths.max()) < lengths[:, None]
    mask = places if side == "right" else places[:, ::-1]
    tokens = np.full(mask.shape, 5, np.int32)
    tokens[mask] = golden["tokens"]
    return tokens, mask


@functools.partial(jax.jit, static_argnames=("config",))
def logits_of(config, params, tokens, mask):
    hidden, _ = Llama(config).apply({"params": params}, tokens, mask)
    embedding = output_embedding(params, config)
    return compute_logits(hidden, embedding, config.logit_soft_cap)[..., ::3]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_the_reference(golden, name, side):
    assert golden["lengths"].max() >= 128
    config, params = load_pretrained(str(GOLDEN / name))
    tokens, mask = padded_rows(golden, side)
    logits = np.asarray(logits_of(config, params, tokens, mask))[mask]
    np.testing.assert_allclose(logits, golden[name], rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "name, change",
    [
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 19}),
        ("qwen2_windows", {"unwindowed_layers": ()}),
        ("qwen2_windows", {"unwindowed_layers": (0, 1)}),
        ("qwen3", {"qk_norm": False}),
        ("llama_biased", {"biased": ("q_proj", "k_proj", "v_proj", "o_proj")}),
        ("llama_biased", {"biased": ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj")}),
        ("qwen2", {"biased": ()}),
        ("gemma2", {"attention_soft_cap": None}),
        ("gemma2", {"zero_centred_norms": False}),
        ("gemma3", {"unwindowed_layers": (0,)}),
        ("gemma3", {"local_rope_theta": None}),
        ("gemma3", {"query_pre_attn_scalar": None}),
        ("gemma3", {"scaled_embedding": False}),
        ("gemma3", {"activation": "silu"}),
    ],
)
def test_golden_logits_notice_each_flag(golden, name, change):
    config, params = load_pretrained(str(GOLDEN / name))
    tokens, mask = padded_rows(golden, "left")
    logits = logits_of(dataclasses.replace(config, **change), params, tokens, mask)
    assert np.abs(np.asarray(logits)[mask] - golden[name]).max() > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_random_and_loaded_weights_have_the_same_shapes(name):
    config, params = load_pretrained(str(GOLDEN / name))
    fresh = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)
    axes = logical_axes(config)  # a name for each axis of each weight
    named = jax.tree.map(len, axes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    assert named == jax.tree.map(jnp.ndim, params)


@pytest.mark.parametrize("name", FAMILIES)
def test_cached_decoding_equals_recomputing_beyond_the_window(golden, name):
    """Prompts shorter than the window and of several windows, then single tokens."""
    config, params = load_pretrained(str(GOLDEN / name))
    tokens, mask = padded_rows(golden, "right")
    tokens, mask, rows = tokens[:, :80], mask[:, :80], np.arange(len(tokens))
    apply = jax.jit(Llama(config).apply)
    expected = np.asarray(apply({"params": params}, tokens, mask)[0])

    @jax.jit
    def step(cache, now):
        hidden, written = Llama(config).apply({"params": params}, now, None, cache)
        return hidden[:, 0], extend_rows(cache, written, jnp.ones(len(rows), bool))

    num_steps = 12
    starts = mask.sum(axis=1) - num_steps
    assert starts.min() == 11  # fewer than either window
    before = np.arange(80) < starts[:, None]
    hidden, written = apply({"params": params}, tokens, before)
    np.testing.assert_allclose(hidden[before], expected[before], rtol=0, atol=5e-5)
    shape = (config.num_layers, len(rows), config.num_kv_heads, 83, config.head_dim)
    cache = begin_rows(empty_cache(shape, config.dtype), rows, written, starts)
    for number in range(num_steps):
        hidden, cache = step(cache, tokens[rows, starts + number][:, None])
        np.testing.assert_allclose(hidden, expected[rows, starts + number], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", WINDOWED)
def test_tokens_of_the_past_beyond_all_windows_have_no_gradient(name):
    """Layer by layer information travels one window on; with no layer unlimited no farther."""
    config, params = load_pretrained(str(GOLDEN / name))
    config = dataclasses.replace(config, sliding_window=5, unwindowed_layers=())
    reach = config.num_layers * (config.sliding_window - 1)
    tokens = np.arange(3, 33, dtype=np.int32)[None]

    def last_hidden(table):
        hidden, _ = Llama(config).apply({"params": {**params, "embed_tokens": table}}, tokens)
        return jnp.sum(hidden[0, -1])

    gradient = np.abs(jax.grad(last_hidden)(params["embed_tokens"])[tokens[0]]).max(axis=1)
    assert np.all(gradient[: -reach - 1] == 0.0)
    assert np.all(gradient[-reach - 1 :] > 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_of_every_family_keep_pefts_names(tmp_path, name):
    config, params = load_pretrained(str(GOLDEN / name))
    lora = LoraConfig(rank=2, alpha=4.0, targets=TARGETS)
    stack = init_adapters(jax.random.key(0), config, lora, 1)
    adapter = jax.tree.map(lambda leaf: leaf[0] + 0.1, stack)
    tokens = np.arange(3, 20, dtype=np.int32)[None]
    plain, _ = Llama(config).apply({"params": params}, tokens)
    adapted, _ = Llama(config, lora).apply({"params": params, "lora": adapter}, tokens)
    assert np.abs(plain - adapted).max() > 0.01
    export_peft(tmp_path / "out", adapter, lora, config, name)
    prefix = "base_model.model."
    exported = load_file(tmp_path / "out" / "adapter_model.safetensors")
    stored = {}
    for file in (GOLDEN / name).glob("*.safetensors"):
        stored.update(load_file(file))
    assert len(exported) == 2 * len(TARGETS) * config.num_layers
    for tensor, array in exported.items():
        module, factor, _ = tensor.removeprefix(prefix).rsplit(".", 2)
        size_out, size_in = stored[f"{module}.weight"].shape
        assert array.shape == ((2, size_in) if factor == "lora_A" else (size_out, 2))


# What config.json may say.


def written_config(directory, name, **changes):
    """A copy of a golden checkpoint with some fields changed; None removes a field."""
    directory = shutil.copytree(GOLDEN / name, directory / "model")
    path = directory / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
    return directory


SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    "name, changes, window, unwindowed",
    [
        ("mistral", {}, 20, ()),
        ("mistral", {"sliding_window": None}, None, ()),
        ("mistral", {"sliding_window": "absent"}, 4096, ()),  # the class's default
        ("mistral", {"layer_types": [SLIDING] * 3}, 20, ()),
        ("qwen2", {}, None, ()),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": False}, None, ()),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2},
         16, (0, 1)),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 28},
         None, ()),
        ("qwen2_windows", {}, 15, (0,)),
        ("qwen2_windows", {"layer_types": [SLIDING, FULL, SLIDING]}, 15, (1,)),
        ("qwen2_windows", {"layer_types": [FULL] * 3}, None, ()),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 9, "layer_types": "absent",
                   "max_window_layers": 0}, 9, ()),
        ("llama3", {"sliding_window": 9}, None, ()),  # as the reference, which does not read it
    ],
)  # fmt: skip
def test_windows_of_the_layers(tmp_path, name, changes, window, unwindowed):
    config = load_config(str(written_config(tmp_path, name, **changes)))
    assert (config.sliding_window, config.unwindowed_layers) == (window, unwindowed)


def test_kernels_with_one_window_for_all_layers_are_refused_by_name():
    config = load_config(str(GOLDEN / "qwen2_windows"))
    with pytest.raises(InputError, match="'splash'.* use 'xla'"):
        dataclasses.replace(config, attention="splash")


def test_flags_of_the_families():
    configs = {name: load_config(str(GOLDEN / name)) for name in FAMILIES}
    qkv = ("q_proj", "k_proj", "v_proj")
    assert configs["untied"].biased == configs["mistral"].biased == configs["qwen3"].biased == ()
    assert configs["qwen2"].biased == configs["qwen2_windows"].biased == qkv
    assert set(configs["llama_biased"].biased) == set(TARGETS)
    assert [name for name in FAMILIES if configs[name].qk_norm] == ["qwen3", "gemma3"]
    assert configs["mistral"].head_dim == 12 and configs["qwen3"].head_dim == 16
    assert configs["qwen2"].head_dim == 8  # hidden size / heads
    assert configs["mistral"].rope_theta == 2500.0 and configs["qwen3"].rope_theta == 5000.0


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("mistral", {"model_type": "absent"}, ["model_type"]),
        ("mistral", {"model_type": None}, ["model_type"]),
        *(("mistral", {"model_type": other}, [f"'{other}'", "llama, mistral, qwen2, qwen3"])
          for other in ("gemma", "phi3", "mixtral", "qwen2_moe", "smollm3")),
        ("qwen2", {"architectures": ["Qwen2ForSequenceClassification"]},
         ["Qwen2ForSequenceClassification", "Qwen2ForCausalLM"]),
        ("qwen3", {"head_dim": "16"}, ["'head_dim'", "'16'"]),
        ("mistral", {"layer_types": [FULL, SLIDING, SLIDING]}, ["layer_types", "'mistral'"]),
        ("llama3", {"layer_types": [SLIDING, SLIDING]}, ["layer_types", "'llama'"]),
        ("qwen3", {"layer_types": [SLIDING] * 3}, ["layer_types", "window None"]),
        ("qwen3", {"layer_types": [FULL] * 2}, ["layer_types", "3 layers"]),
        ("qwen2", {"layer_types": ["chunked_attention"] * 3}, ["'chunked_attention'"]),
        ("mistral", {"sliding_window": -1}, ["sliding_window", "-1"]),
        ("qwen3", {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e6}},
         ["'proportional'", "'llama3'"]),
        ("qwen2", {"rope_scaling": {"type": "su", "factor": 4.0}}, ["'su'"]),
        ("qwen2", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ("qwen2", {"quantization_config": {"quant_method": "gptq"}}, ["quantization_config"]),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_name(tmp_path, name, changes, words):
    with pytest.raises(InputError) as caught:
        load_config(str(written_config(tmp_path, name, **changes)))
    assert "\n" not in str(caught.value)
    for word in [*words, "config.json"] if "sliding_window" not in changes else words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "name, tensor, fate",
    [
        ("qwen2", "model.layers.1.self_attn.k_proj.bias", "lacks"),
        ("llama_biased", "model.layers.0.mlp.down_proj.bias", "lacks"),
        ("qwen3", "model.layers.2.self_attn.q_norm.weight", "lacks"),
        ("qwen2", "model.layers.1.self_attn.o_proj.bias", "unexpectedly has"),
        ("mistral", "model.layers.0.self_attn.q_norm.weight", "unexpectedly has"),
    ],
)
def test_missing_and_unexpected_tensors(tmp_path, name, tensor, fate):
    directory = shutil.copytree(GOLDEN / name, tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    if fate == "lacks":
        del tensors[tensor]
    else:
        tensors[tensor] = np.zeros(32, np.float32)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(InputError, match=f"{fate} tensor {tensor}"):
        load_pretrained(str(directory))


def test_wrong_head_dim(tmp_path):
    with pytest.raises(InputError, match=r"self_attn\.q_proj\.weight has shape \(48, 32\)"):
        load_pretrained(str(written_config(tmp_path, "mistral", head_dim=16)))
