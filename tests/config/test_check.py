from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.config import (
    check_config,
    default_config,
    objective_names,
    parse_preferences,
)
from paretohqd_jax.data.rows import OUR_COLUMNS
from paretohqd_jax.errors import InputError


def valid_config():
    config = default_config()
    config.data.source, config.model.source = "rows.parquet", "model"
    return config


def test_the_defaults_are_the_papers_and_valid_once_the_sources_are_set():
    config = valid_config()
    check_config(config)
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (64, 128, 0.05)
    assert (config.select.k, config.train.stage1_steps, config.train.batch_size) == (100, 200, 8)
    assert config.generate.num_prompts == 10_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.source", ""),
        ("data.prompt_format", "no place for it"),
        ("model.source", ""),
        ("model.dtype", "float16"),
        ("model.remat", "some"),
        ("model.attention", "flash"),
        ("rewards.models", ("brief",)),
        ("rewards.models", ("brief", "brief")),
        ("rewards.models", ("brief", "brief=positivity")),
        ("select.k", 1),
        ("select.min_pool_size", 99),
        ("select.range_scope", "all"),
        ("lora.rank", 0),
        ("lora.dropout", 1.0),
        ("train.num_microbatches", 0),
        ("train.num_microbatches", 3),
        ("train.learning_rate", 0.0),
        ("train.warmup_steps", 200),
        ("train.weight_decay", -0.1),
        ("generate.top_p", 0.0),
        ("evaluate.temperature", -1.0),
        ("seed", -1),
    ],
)
def test_an_impossible_value_is_named_with_the_option(name, value):
    config = valid_config()
    group, _, option = name.rpartition(".")
    (config[group] if group else config)[option] = value
    with pytest.raises(InputError, match=name) as error:
        check_config(config)
    assert "\n" not in str(error.value)


def test_preferences_are_a_number_or_written_out():
    np.testing.assert_allclose(parse_preferences("3", 2), [[0, 1], [0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(parse_preferences("0.8,0.2; 0,1", 2), [[0.8, 0.2], [0, 1]])


@pytest.mark.parametrize(
    "text", ["0.8,0.3", "1.2,-0.2", "0.5,0.5,0", "a,b", "0.5,", "nan,1", "nonsense", "0", ""]
)
def test_preferences_off_the_simplex_are_refused(text):
    with pytest.raises(InputError):
        parse_preferences(text, 2)


@pytest.mark.parametrize("name", sorted(OUR_COLUMNS))
def test_no_objective_is_called_like_a_column_of_ours(name):
    with pytest.raises(InputError, match=f"its column cannot be called '{name}'"):
        objective_names([f"{name}=brief", "positivity"])
