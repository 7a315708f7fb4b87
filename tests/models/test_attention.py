"""The kernels of single platforms against plain XLA: on the CPU, and cuDNN's on a GPU."""

from __future__ import annotations

import dataclasses
import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import decoder_layer
from paretohqd_jax.models.attention import (
    attention,
    check_attention,
    cudnn_attention,
    splash_attention,
)
from paretohqd_jax.models.llama import Llama, LlamaConfig, init_params
from paretohqd_jax.models.lora import LoraConfig, init_adapters

interpreted = functools.partial(splash_attention, interpret=True)


def inputs(num_tokens, num_heads=4, num_kv_heads=2, size=32, num_rows=4):
    """Queries, keys, values, and masks of rows padded on the right, on both sides, not at all."""
    shapes = [(num_rows, num_tokens, num_heads, size)]
    shapes += [(num_rows, num_kv_heads, num_tokens, size)] * 2
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [2 * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    real = np.ones((num_rows, num_tokens), bool)
    real[0, -num_tokens // 3 :] = False
    real[1, : num_tokens // 4] = False
    real[2, :5] = real[2, -9:] = False
    return arrays, real


def reference(query, keys, values, real, window=None, scale=None):
    positions = np.arange(real.shape[1])
    distance = positions[:, None] - positions
    seen = (distance >= 0) & (distance < (window or real.shape[1]))
    return attention(query, keys, values, jnp.asarray(seen & real[:, None]), scale)


def compare(kernel, arrays, real, window, scale):
    """Values and gradients at the real tokens."""
    weights = jax.random.normal(jax.random.key(1), arrays[0].shape) * real[..., None, None]

    def mean(function):
        def total(query, keys, values):
            mixed = function(query, keys, values) * weights
            return jnp.sum(mixed), mixed

        return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)

    expected, mixed = mean(lambda *qkv: reference(*qkv, real, window, scale))
    found, kernel_mixed = mean(kernel)
    np.testing.assert_allclose(kernel_mixed, mixed, atol=1e-4)
    for gradient, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, right, atol=1e-4)


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("num_tokens", "num_kv_heads", "window", "scale"),
    [(100, 2, None, None), (300, 1, 48, 0.3), (128, 4, None, None)],
)
def test_splash_equals_xla(num_tokens, num_kv_heads, window, scale):
    arrays, real = inputs(num_tokens, num_kv_heads=num_kv_heads)
    options = window, scale
    compare(lambda *qkv: interpreted(*qkv, jnp.asarray(real), *options), arrays, real, *options)


@pytest.mark.cpu
def test_splash_runs_on_each_devices_rows_and_heads():
    arrays, real = inputs(60)
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), (*arrays,))
    expected = jax.vmap(lambda *qkv: reference(*qkv, real))(*stacked)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), (jax.sharding.AxisType.Auto,) * 3)
    rules = (("batch", "fsdp"), ("heads", "tensor"), ("kv_heads", "tensor"))
    every_adapter = jax.vmap(interpreted, in_axes=(0, 0, 0, None), spmd_axis_name="data")
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        mixed = jax.jit(every_adapter)(*stacked, jnp.asarray(real))
    assert mixed.sharding.spec[:4] == ("data", "fsdp", None, "tensor")
    pad = ~real[None, :, :, None, None]
    np.testing.assert_allclose(np.where(pad, 0, mixed), np.where(pad, 0, expected), atol=1e-4)


@pytest.mark.cpu
def test_cudnn_is_asked_for_what_xla_computes(monkeypatch):
    """The same call, served by the XLA implementation behind it: mask, window and layout hold."""
    asked = []
    serve = jax.nn.dot_product_attention

    def served(*args, implementation, **options):
        asked.append(implementation)
        return serve(*args, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", served)
    arrays, real = inputs(24)
    real[1:] = True
    real[2, -9:] = False
    for options in ((None, None), (5, 0.3)):
        compare(lambda *qkv, o=options: cudnn_attention(*qkv, *o), arrays, real, *options)
    assert set(asked) == {"cudnn"}


@pytest.mark.skipif("cuda" not in os.environ["JAX_PLATFORMS"], reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("num_tokens", [128, 511])
def test_cudnn_equals_xla_on_a_gpu(num_tokens):
    """Within the rounding of bfloat16, values and gradients, under the map over adapters."""
    arrays, real = inputs(num_tokens, size=64)
    halves = [jnp.stack([array, -array]).astype(jnp.bfloat16) for array in arrays]
    real[:] = True

    def gradients(kernel):
        def total(*qkv):
            return jnp.sum(jnp.sin(jax.vmap(kernel)(*qkv).astype(jnp.float32)))

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*halves)

    for found, expected in zip(
        gradients(cudnn_attention), gradients(lambda *qkv: reference(*qkv, real)), strict=True
    ):
        wide = np.asarray(expected, np.float32)
        np.testing.assert_allclose(np.asarray(found, np.float32), wide, atol=0.15 * wide.std())


@pytest.mark.cpu
def test_a_model_with_splash_equals_one_with_xla(monkeypatch):
    """Under the scan over layers, rematerialised, differentiated, stacked over adapters."""
    monkeypatch.setattr(decoder_layer, "splash_attention", interpreted)
    config = LlamaConfig(31, 32, 48, 2, 4, 2, 8, 64, remat="full")
    lora = LoraConfig(rank=2, alpha=2.0, dropout=0.0)
    params = init_params(jax.random.key(0), config)
    adapters = init_adapters(jax.random.key(1), config, lora, 2)
    tokens = jax.random.randint(jax.random.key(2), (3, 20), 0, 31)
    real = jnp.arange(20) < jnp.array([[20], [13], [7]])

    def gradient(attention):
        model = Llama(dataclasses.replace(config, attention=attention), lora)

        def total(adapter):
            hidden, _ = model.apply({"params": params, "lora": adapter}, tokens, real)
            return jnp.mean(jnp.sin(hidden) * real[..., None])

        return jax.jit(jax.vmap(jax.grad(total)))(adapters)

    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4),
        gradient("splash"), gradient("xla"),
    )  # fmt: skip


@pytest.mark.cpu
@pytest.mark.parametrize("implementation", ["cudnn", "splash"])
def test_what_the_platform_cannot_serve_is_refused_with_the_remedy(implementation):
    with pytest.raises(InputError, match=f"attention='{implementation}' needs .* cpu; use 'xla'"):
        check_attention(implementation, "bfloat16", 64)
    check_attention("xla", "float32", 64)


def test_an_unknown_attention_is_refused():
    with pytest.raises(InputError, match="attention is 'flash': choose from xla, cudnn, splash"):
        LlamaConfig(31, 32, 48, 2, 4, 2, 8, 64, attention="flash")
