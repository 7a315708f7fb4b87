"""RoPE's scaling out of GGUF metadata and tensors: as llama.cpp reads it, or refused by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.gguf_rope import rope_words
from paretohqd_jax.models.rope_scaling import Linear, Yarn, read_scaling

PATH = Path("model.gguf")
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
BOTH = {SHORT: [1.0] * 4, LONG: [2.0] * 4}
FREQS = {"rope_freqs.weight": [1.0] * 4}


def words_of(tensors=(), family="qwen3", **scaling):
    values = {f"{family}.rope.scaling.{name}": value for name, value in scaling.items()}
    return rope_words(PATH, values, family, dict(tensors))


def test_what_is_asked_for_is_read():
    words = words_of(type="yarn", factor=4.0, original_context_length=40, yarn_beta_fast=9.0,
                     yarn_beta_slow=0.5, attn_factor=1.5, finetuned=True)  # fmt: skip
    temperature = 1.5 * (1 + 0.1 * math.log(4))
    assert read_scaling(PATH, words, 64) == Yarn(4.0, 40, temperature, 9.0, 0.5)
    assert read_scaling(PATH, words_of(factor=3.0), 64) == Linear(3.0)
    longrope = words_of(BOTH, type="longrope", original_context_length=40, attn_factor=1.5)
    scaling = read_scaling(PATH, longrope, 64)
    assert (scaling.short_factor, scaling.long_factor) == ((1.0,) * 4, (2.0,) * 4)
    assert (scaling.attention_factor, scaling.original_max_position_embeddings) == (1.5, 40)


@pytest.mark.parametrize("scaling", [{}, {"type": "none", "factor": 8.0}, {"factor": 0.0}])
def test_no_scaling(scaling):
    assert read_scaling(PATH, words_of(**scaling), 64) is None


@pytest.mark.parametrize(
    "scaling, tensors, words",
    [
        ({"type": "yarn", "factor": -2.0}, {}, ["rope.scaling.factor' is -2.0"]),
        ({"type": "yarn", "factor": "2"}, {}, ["rope.scaling.factor' is '2'"]),
        ({"type": "none", "factor": math.nan}, {}, ["rope.scaling.factor' is nan"]),
        ({"factor": True}, {}, ["rope.scaling.factor' is True"]),
        ({"factor": [2.0]}, {}, ["rope.scaling.factor' is [2.0]"]),
        ({"type": "yarn", "attn_factor": "x"}, {}, ["attn_factor' is 'x'"]),
        ({"factor": 2.0, "attn_factor": 1.1}, {}, ["attn_factor", "'linear'"]),
        ({"type": "yarn", "yarn_beta_fast": 0.0}, {}, ["yarn_beta_fast' is 0.0"]),
        ({"type": "yarn", "original_context_length": 1}, {}, ["original_context_length' is 1"]),
        ({"type": "yarn", "yarn_ext_factor": 0.5}, {}, ["yarn_ext_factor' is not supported"]),
        ({"type": "dynamic", "factor": 2.0}, {}, ["type' is 'dynamic'", "longrope"]),
        ({"type": 3}, {}, ["rope.scaling.type' is 3", "a text"]),
        ({"type": ["yarn"]}, {}, ["rope.scaling.type' is ['yarn']"]),
        ({}, BOTH, [LONG, "'linear' does not use"]),
        ({}, {SHORT: [1.0]}, [SHORT, "'linear' does not use"]),
        ({"type": "yarn", "factor": 2.0}, BOTH, [LONG, "'yarn' does not use"]),
        ({"type": "longrope"}, {SHORT: [1.0]}, [f"lacks tensor {LONG}"]),
        ({"type": "longrope"}, {}, [f"lacks tensor {LONG}"]),
        ({"type": "longrope", "factor": 2.0}, BOTH, ["a factor (2.0)", "'longrope'"]),
        ({"type": "longrope"}, {**BOTH, SHORT: [0.0]}, [f"{SHORT}' is 0.0"]),
        ({"type": "longrope"}, {**BOTH, SHORT: [[1.0]]}, [f"{SHORT}' is [1.0]"]),
        ({"type": "longrope"}, {**BOTH, **FREQS}, ["rope_freqs.weight", "keep one"]),
        ({"factor": 2.0}, FREQS, ["rope_freqs.weight", "'linear'", "keep one"]),
    ],
)
def test_what_is_wrong_or_would_be_lost_is_refused(scaling, tensors, words):
    with pytest.raises(InputError) as caught:
        words_of(tensors, **scaling)
    message = str(caught.value)
    assert message.startswith("model.gguf: ")
    for word in words:
        assert word in message


def test_divisors_in_gemma_3_are_refused_as_such():
    with pytest.raises(InputError, match="tensor rope_freqs.weight is not supported in gemma3"):
        words_of(FREQS, family="gemma3")
