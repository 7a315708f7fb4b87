from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama, LlamaConfig, init_params
from paretohqd_jax.models.lora import TARGETS, LoraConfig, combine_adapters, init_adapters

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


def test_a_combination_is_the_sum_of_the_dense_updates():
    """Not what averages of the factors would give."""
    stack = init_adapters(jax.random.key(0), CONFIG, LORA, 2)
    stack = jax.tree.map(
        lambda x: np.asarray(x) + np.random.default_rng(1).normal(size=x.shape) / 5, stack
    )
    params, weights = init_params(jax.random.key(1), CONFIG), [0.3, 0.7]
    tokens = jnp.arange(12)[None]
    adapter, lora = combine_adapters(stack, weights, LORA)
    assert lora.rank == 6 and lora.scale == LORA.scale
    variables = {"params": params, "lora": adapter}
    combined, _ = jax.jit(Llama(CONFIG, lora).apply)(variables, tokens)

    def shifted(update):
        layers = dict(params["layers"])
        for target, factors in stack["layers"].items():
            kernel = layers[target]["kernel"] + LORA.scale * update(factors["a"], factors["b"])
            layers[target] = {"kernel": kernel.astype(jnp.float32)}
        hidden, _ = apply({"params": {**params, "layers": layers}}, tokens)
        return hidden

    apply = jax.jit(Llama(CONFIG).apply)
    dense = shifted(lambda a, b: sum(w * a[i] @ b[i] for i, w in enumerate(weights)))
    np.testing.assert_allclose(combined, dense, rtol=0, atol=2e-5)
    averaged = shifted(lambda a, b: np.tensordot(weights, a, 1) @ np.tensordot(weights, b, 1))
    assert np.abs(averaged - dense).max() > 0.1


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
