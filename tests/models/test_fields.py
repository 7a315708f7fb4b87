"""What config.json may hold: null is as good as absent, what is wrong is named with its file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.fields import need_list, need_text
from paretohqd_jax.models.huggingface import DEFAULTS, TOLD_BY_NULL, parse_config
from paretohqd_jax.models.rope_scaling import Dynamic
from paretohqd_jax.models.weights import TOY_CONFIG

GOLDEN = Path(__file__).parent / "golden"
PATH = Path("model/config.json")
FAMILIES = {"llama": "untied", "gemma3_text": "gemma3"}  # the others' checkpoints have their names


def golden_values(family):
    return json.loads((GOLDEN / FAMILIES.get(family, family) / "config.json").read_text())


def outcome(values):
    """The configuration, or what is said of it."""
    try:
        return parse_config(PATH, values)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("family", DEFAULTS)
def test_null_is_as_good_as_absent(family):
    values = golden_values(family)
    fields = values.keys() | DEFAULTS[family].keys() | {"rope_theta", "rope_scaling"}
    for field in fields - {*TOLD_BY_NULL}:
        absent = outcome({name: value for name, value in values.items() if name != field})
        assert outcome(values | {field: None}) == absent, field


def test_what_null_tells():
    """As transformers reads it."""
    assert outcome(golden_values("mistral") | {"sliding_window": None}).sliding_window is None
    for family in ("llama", "qwen2", "qwen3"):
        config = outcome(golden_values(family) | {"num_key_value_heads": None})
        assert config.num_kv_heads == config.num_heads == 4
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    config = outcome(golden_values("gemma2") | caps)
    assert (config.attention_soft_cap, config.logit_soft_cap) == (None, None)


def test_what_gemma_3_has_by_default():
    values = golden_values("gemma3_text") | dict.fromkeys(
        ("rope_theta", "rope_local_base_freq", "head_dim", "sliding_window_pattern",
         "tie_word_embeddings", "query_pre_attn_scalar", "num_hidden_layers")
    )  # fmt: skip
    config = outcome(values)
    assert (config.rope_theta, config.local_rope_theta, config.head_dim) == (1e6, 1e4, 256)
    assert config.tie_word_embeddings and config.query_pre_attn_scalar == 256
    assert config.unwindowed_layers == (5, 11, 17, 23)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sliding_window": 2**31}, ["'sliding_window' is 2147483648", "to 2147483647"]),
        ({"max_position_embeddings": 10**400}, ["'max_position_embeddings' is 1000"]),
        ({"rms_norm_eps": 1e39}, ["'rms_norm_eps' is 1e+39", "float32"]),
        ({"rms_norm_eps": 1e-39}, ["'rms_norm_eps' is 1e-39", "float32"]),
        ({"query_pre_attn_scalar": 10.5}, ["'query_pre_attn_scalar' is 10.5"]),
        ({"rope_local_base_freq": 0}, ["'rope_local_base_freq' is 0"]),
        ({"partial_rotary_factor": True}, ["'partial_rotary_factor' is True"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ({"num_key_value_heads": 3}, ["4 attention heads cannot share 3"]),
        ({"model_type": "gemma3", "architectures": None, "text_config": {"model_type": "llama"}},
         ["text_config has model_type 'llama'"]),
    ],
)  # fmt: skip
def test_values_that_are_wrong_are_named(changes, words):
    message = outcome(golden_values("gemma3_text") | changes)
    assert message.startswith(f"{PATH}: ")
    for word in words:
        assert word in message


def with_rope(**rope):
    return golden_values("qwen3") | {"rope_parameters": {"rope_theta": 5000.0, **rope}}


FACTORS = [True, 0, -1, math.nan, math.inf, "2", [2.0], 10**400, 1e300]


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "default"])
@pytest.mark.parametrize("factor", FACTORS, ids=[str(factor)[:9] for factor in FACTORS])
def test_factors_that_are_none(kind, factor):
    message = outcome(with_rope(rope_type=kind, factor=factor))
    assert message.startswith(f"{PATH}: field 'factor' is {factor!r:.80}; it must be a number")


LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize("kind", [{"rope_type": "yarn", "factor": 2.0}, LONG])
@pytest.mark.parametrize("original", [1, 0.5, 40.7, 2**31, "40"])
def test_original_lengths_that_are_none(kind, original):
    message = outcome(with_rope(**kind, original_max_position_embeddings=original))
    assert f"'original_max_position_embeddings' is {original!r}; it must be an integer" in message


@pytest.mark.parametrize(
    "rope, words",
    [
        ({"rope_type": ["linear"], "factor": 2.0}, ["'rope_type' is ['linear']", "a text"]),
        ({"rope_type": 3}, ["'rope_type' is 3", "a text"]),
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}, ["'yarn'", "above 1, not 1.0"]),
        ({"rope_type": "yarn", "factor": 2.0, "beta_slow": 0}, ["'beta_slow' is 0"]),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": "no"}, ["'truncate' is 'no'"]),
    ],
)
def test_scalings_that_are_wrong_are_named(rope, words):
    message = outcome(with_rope(**rope))
    assert message.startswith(f"{PATH}: ")
    for word in words:
        assert word in message


def test_dynamic_scaling_needs_more_than_a_pair():
    with pytest.raises(InputError, match="'dynamic' needs heads of more than 2"):
        dataclasses.replace(TOY_CONFIG, head_dim=2, rope_scaling=Dynamic(2.0, 64))


def test_windows_fit_int32():
    assert dataclasses.replace(TOY_CONFIG, sliding_window=2**31 - 1).sliding_window < 2**31
    with pytest.raises(InputError, match="sliding_window is 2147483648"):
        dataclasses.replace(TOY_CONFIG, sliding_window=2**31)


def test_lists_and_texts():
    values = {"texts": ["a", "b"], "numbers": [1, 2.5], "mixed": ["a", 1], "empty": [], "text": "a"}
    assert need_list(PATH, values, "texts", str, 2) == ["a", "b"]
    assert need_list(PATH, values, "numbers", float) == [1, 2.5]
    assert need_text(PATH, values, "none", "default") == "default"
    for field, kind, words in (
        ("mixed", str, "'mixed[1]' is 1; it must be a text"),
        ("numbers", int, "'numbers[1]' is 2.5; it must be an integer"),
        ("empty", str, "'empty' is []; it must be a list of texts"),
        ("none", float, "'none' is missing; it must be a list of finite numbers"),
    ):
        with pytest.raises(InputError) as caught:
            need_list(PATH, values, field, kind)
        assert words in str(caught.value)
    with pytest.raises(InputError, match="'texts' has 2 texts; it must have 3"):
        need_list(PATH, values, "texts", str, 3)
