"""Scaled rotary positions against the reference's stored logits, from safetensors and GGUF."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_weights import edit_config, message_of, stored_tensors, write_gguf

from paretohqd_jax.models.cache import begin_rows, empty_cache, extend_rows
from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.merging import config_values
from paretohqd_jax.models.rope import rope_frequencies
from paretohqd_jax.models.rope_scaling import Linear, Llama3, LongRope, Yarn, scaling_values
from paretohqd_jax.models.weights import load_config, load_pretrained

GOLDEN = Path(__file__).parent / "golden"
STORED = np.load(GOLDEN / "rope.npz")
CHANGES = json.loads(str(STORED["changes"]))
FAMILIES = np.load(GOLDEN / "families.npz")
PAIRS = 8  # of a head of qwen3/


def checkpoint(name, tmp_path):
    directory = shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    edit_config(directory, **CHANGES[name])
    return str(directory)


def golden_rows():
    lengths = FAMILIES["lengths"]
    mask = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]  # padded on the left
    tokens = np.full(mask.shape, 5, np.int32)
    tokens[mask] = FAMILIES["tokens"]
    return tokens, mask


@pytest.mark.parametrize("name", CHANGES)
def test_logits_equal_the_reference(tmp_path, name):
    """Rows of 23, 90 and 144 tokens, in one batch as each alone."""
    config, params = load_pretrained(checkpoint(name, tmp_path))
    original = CHANGES[name]["rope_parameters"].get("original_max_position_embeddings", 60)
    assert FAMILIES["lengths"].max() > original and FAMILIES["lengths"].min() < original
    tokens, mask = golden_rows()

    @jax.jit
    def logits_of(params):
        hidden, _ = Llama(config).apply({"params": params}, tokens, mask)
        return compute_logits(hidden, output_embedding(params, config))[..., ::9]

    logits = np.asarray(logits_of(params))[mask][::2]
    np.testing.assert_allclose(logits, STORED[name], rtol=0, atol=1e-4)
    assert np.abs(logits - FAMILIES["qwen3"][::2, ::3]).max() > 1.0  # without scaling


def test_decoding_turns_tokens_as_the_whole_text_does(tmp_path):
    config, params = load_pretrained(checkpoint("longrope_in_full", tmp_path))
    model, tokens = Llama(config), golden_rows()[0][:1, :60]  # original length: 100
    expected, written = jax.jit(model.apply)({"params": params}, tokens)
    shape = (config.num_layers, 1, config.num_kv_heads, 64, config.head_dim)
    before = jax.tree.map(lambda x: x[..., :57, :], written)
    cache = begin_rows(empty_cache(shape, config.dtype), np.arange(1), before, np.array([57]))
    step = jax.jit(lambda cache, now: model.apply({"params": params}, now, None, cache))
    for place in range(57, 60):
        hidden, written = step(cache, tokens[:, place : place + 1])
        cache = extend_rows(cache, written, jnp.ones(1, bool))
        np.testing.assert_allclose(hidden[0, 0], expected[0, place], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", CHANGES)
def test_a_scaling_survives_its_way_through_config_json(tmp_path, name):
    config = load_config(checkpoint(name, tmp_path))
    assert scaling_values(config.rope_scaling)["rope_type"] == name.removesuffix("_in_full")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config_values(config)))
    assert load_config(str(tmp_path / "model")).rope_scaling == config.rope_scaling


def test_the_original_length_beside_the_parameters_counts(tmp_path):
    """As Phi-3 has it, and transformers reads it for all."""
    directory = checkpoint("longrope", tmp_path)
    edit_config(Path(directory), original_max_position_embeddings=64)
    scaling = load_config(directory).rope_scaling
    assert scaling.original_max_position_embeddings == 64
    np.testing.assert_allclose(scaling.attention_factor, (1 + np.log(4) / np.log(64)) ** 0.5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"factor": "2"}, ["'factor'", "'2'"]),
        ({"short_factor": [1.0, "2"]}, ["'short_factor'", "'2'"]),
        ({"long_factor": None}, ["'long_factor' is missing"]),
        ({"long_factor": [1.0] * 7}, ["8 and 7 numbers", "heads of 16 need 8"]),
        ({"rope_type": "proportional"}, ["'proportional'", "'longrope'"]),
    ],
)
def test_parameters_that_are_wrong_are_named(tmp_path, changes, words):
    directory = checkpoint("longrope", tmp_path)
    given = CHANGES["longrope"]["rope_parameters"]
    edit_config(Path(directory), rope_parameters=given | changes)
    for word in words:
        assert word in message_of(directory)


# GGUF: the metadata and tensors that llama.cpp's conversion writes.


def scaling_of_gguf(tmp_path, tensors=(), **extra):
    path, config = tmp_path / "model.gguf", load_config(str(GOLDEN / "qwen3"))
    extra = {f"qwen3.rope.scaling.{name}": value for name, value in extra.items()}
    write_gguf(path, config, stored_tensors("qwen3") | dict(tensors), "qwen3", extra)
    load_pretrained(str(path))
    return load_config(str(path)).rope_scaling


def test_yarn_of_gguf(tmp_path):
    scaling = scaling_of_gguf(tmp_path, type="yarn", factor=4.0, original_context_length=40)
    assert scaling == load_config(checkpoint("yarn", tmp_path)).rope_scaling
    assert isinstance(scaling, Yarn)


def test_longrope_of_gguf(tmp_path):
    given = CHANGES["longrope"]["rope_parameters"]
    tensors = {
        f"rope_factors_{kind}.weight": np.array(given[f"{kind}_factor"], np.float32)
        for kind in ("short", "long")
    }
    expected = load_config(checkpoint("longrope", tmp_path)).rope_scaling
    factor = expected.attention_factor
    scaling = scaling_of_gguf(
        tmp_path, tensors, type="longrope", attn_factor=factor, original_context_length=32
    )
    for found, right in zip(vars(scaling).values(), vars(expected).values(), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_llama_3_of_gguf_is_kept_as_divisors(tmp_path):
    llama3 = Llama3(8.0, 1.0, 4.0, 64)
    plain, scaled = (rope_frequencies(16, 5000.0, kind, None) for kind in (None, llama3))
    tensors = {"rope_freqs.weight": np.asarray(plain / scaled)}
    scaling = scaling_of_gguf(tmp_path, tensors)
    assert isinstance(scaling, LongRope) and scaling.attention_factor == 1.0
    for length in (10, 1000):
        frequencies = rope_frequencies(16, 5000.0, scaling, jnp.array([[length - 1]]))
        np.testing.assert_allclose(frequencies[0, 0], scaled, rtol=1e-6)


def test_two_scalings_of_gguf_are_refused(tmp_path):
    path, config = tmp_path / "model.gguf", load_config(str(GOLDEN / "qwen3"))
    tensors = stored_tensors("qwen3") | {"rope_freqs.weight": np.ones(PAIRS, np.float32)}
    write_gguf(path, config, tensors, "qwen3", {"qwen3.rope.scaling.factor": 2.0})
    message = message_of(path)
    assert "rope_freqs.weight" in message and "'linear'" in message


def test_linear_of_gguf(tmp_path):
    assert scaling_of_gguf(tmp_path, factor=3.0) == Linear(3.0)
