"""Weights that are read straight into their place on eight devices."""

from __future__ import annotations

import dataclasses
import tracemalloc
import weakref
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from paretohqd_jax.models import shards, weights
from paretohqd_jax.models.llama import (
    Llama,
    LlamaConfig,
    compute_logits,
    logical_axes,
    output_embedding,
    param_shapes,
)
from paretohqd_jax.models.weights import RANDOM_TOY, load_config, load_pretrained
from paretohqd_jax.training.mesh import make_mesh, named_shardings, sharded

pytestmark = pytest.mark.cpu
GOLDEN = Path(__file__).parent / "golden"


def shardings_of(config: LlamaConfig, *shape: int):
    return named_shardings(make_mesh(*shape), logical_axes(config), param_shapes(config))


@pytest.mark.parametrize("name", ["untied", "tied", "qwen2", "qwen3"])
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 8, 1)])
def test_sharded_loads_equal_unsharded_ones(name, shape):
    config, whole = load_pretrained(str(GOLDEN / name))
    shardings = shardings_of(config, *shape)
    _, parts = load_pretrained(str(GOLDEN / name), shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert jax.tree.map(lambda leaf: leaf.sharding, parts) == shardings


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_gemma_on_several_devices(name):
    """Norms after, soft caps and two RoPEs, cut over rows and heads."""
    config, whole = load_pretrained(str(GOLDEN / name))
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    shardings = named_shardings(mesh, logical_axes(config), param_shapes(config))
    _, parts = load_pretrained(str(GOLDEN / name), shardings=shardings)
    tokens = np.arange(2 * 30).reshape(2, 30) % 60 + 3

    @jax.jit
    def logits_of(params):
        hidden, _ = Llama(config).apply({"params": params}, tokens)
        return compute_logits(hidden, output_embedding(params, config), config.logit_soft_cap)

    expected = np.asarray(logits_of(whole))
    with sharded(mesh):
        found = logits_of(parts)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def test_the_random_toy_is_made_in_place():
    config, whole = load_pretrained(RANDOM_TOY)
    shardings = shardings_of(config, 2, 2, 2)
    _, parts = load_pretrained(RANDOM_TOY, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert jax.tree.map(lambda leaf: leaf.sharding, parts) == shardings


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_every_byte_is_read_once_and_one_tensor_at_a_time(monkeypatch, shape):
    source = str(GOLDEN / "untied")
    config, whole = load_pretrained(source)
    sizes, live = [], []

    def counting_open(directory):
        shapes, read = open_weights(directory)

        def counting_read(name, index):
            array = read(name, index)
            assert not any(reference() is not None for reference in live), "one at a time"
            live.append(weakref.ref(array))
            sizes.append((array.size, np.prod(shapes[name])))
            return array

        return shapes, counting_read

    open_weights = shards.open_weights
    monkeypatch.setattr(weights.shards, "open_weights", counting_open)
    load_pretrained(source, shardings=shardings_of(config, *shape))
    assert sum(read for read, _ in sizes) == sum(leaf.size for leaf in jax.tree.leaves(whole))
    cuts = shape[1] * shape[2]
    assert max(read for read, _ in sizes) == max(total for _, total in sizes) // cuts


def test_a_host_holds_one_part_of_one_array_besides_its_own(tmp_path):
    config = dataclasses.replace(
        load_config(str(GOLDEN / "untied")), vocab_size=2048, hidden_size=256, num_layers=4,
        intermediate_size=1024, num_heads=8, num_kv_heads=4, head_dim=32,
    )  # fmt: skip
    save_file(
        {
            name: np.ones(shape, np.float32)
            for name, shape in weights._expected_shapes(config).items()
        },
        tmp_path / "model.safetensors",
    )
    shapes, read = shards.open_weights(tmp_path)
    shardings = shardings_of(config, 1, 2, 4)
    tracemalloc.start()
    try:
        params = weights._assemble(read, config, shardings)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    largest = max(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
    # Simulated devices may keep the very buffers that numpy made, and then those count as held.
    assert total > 20 * largest and peak - held < 2 * largest
