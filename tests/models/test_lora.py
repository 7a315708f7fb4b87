from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.lora import TARGETS, LoraConfig, init_adapters

CONFIG = LlamaConfig(32, 16, 24, 2, 4, 2, 4, 64)
LORA = LoraConfig(rank=3, alpha=12.0, dropout=0.0, targets=TARGETS)


def test_shapes_bounds_and_zeros():
    adapters = init_adapters(jax.random.key(0), CONFIG, LORA, 5)["layers"]
    assert set(adapters) == set(TARGETS)
    for target, (size_in, size_out) in CONFIG.projection_shapes().items():
        a, b = adapters[target]["a"], adapters[target]["b"]
        assert a.shape == (5, 2, size_in, 3) and b.shape == (5, 2, 3, size_out)
        assert a.dtype == b.dtype == jnp.float32
        assert 0.9 < np.abs(a).max() * size_in**0.5 <= 1.0
        assert not np.any(b)
    assert not np.array_equal(adapters["q_proj"]["a"][0], adapters["q_proj"]["a"][1])


def test_an_adapter_does_not_depend_on_the_size_of_the_stack_or_on_other_targets():
    stack = init_adapters(jax.random.key(0), CONFIG, LORA, 5)["layers"]["v_proj"]["a"]
    few = LoraConfig(rank=3, alpha=12.0, dropout=0.0, targets=("v_proj",))
    single = init_adapters(jax.random.key(0), CONFIG, few, 2)["layers"]["v_proj"]["a"]
    np.testing.assert_array_equal(stack[:2], single)


def test_paper_sizes_for_llama_2_7b():
    """Spec section 0: rank 64 on q and v of Llama-2-7B is 33,554,432 parameters."""
    config = LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096)
    shapes = jax.eval_shape(lambda: init_adapters(jax.random.key(0), config, LoraConfig(), 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 33_554_432
    assert LoraConfig().scale == 2.0


@pytest.mark.parametrize(
    "options, word",
    [
        ({"targets": ("q_proj", "qkv")}, "'qkv'"),
        ({"targets": ()}, "empty"),
        ({"rank": 0}, "rank"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(InputError, match=word):
        LoraConfig(**options)
