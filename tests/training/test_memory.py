"""Estimated bytes against those of the compiler."""

from __future__ import annotations

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from paretohqd_jax.data.batches import Examples
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.cache import Cache
from paretohqd_jax.models.layers import apart
from paretohqd_jax.models.llama import Llama, LlamaConfig, logical_axes, param_shapes
from paretohqd_jax.models.lora import TARGETS, LoraConfig, init_adapters, side_by_side
from paretohqd_jax.sampling import decoder
from paretohqd_jax.sampling.slots import empty_slots
from paretohqd_jax.training import memory
from paretohqd_jax.training.memory import check_memory, generation_memory, training_memory
from paretohqd_jax.training.mesh import (
    AXES,
    DECODING_RULES,
    RULES,
    make_mesh,
    named_shardings,
    sharded,
)
from paretohqd_jax.training.placement import place_training
from paretohqd_jax.training.step import (
    OptimizerConfig,
    init_train_state,
    make_optimizer,
    make_train_step,
)

pytestmark = pytest.mark.cpu
WIDE = LlamaConfig(2048, 512, 1408, 4, 8, 8, 64, 512)  # large layers, few logits
VERBOSE = LlamaConfig(16384, 256, 704, 3, 8, 4, 32, 512, tie_word_embeddings=True)
FEW = LoraConfig(rank=8, dropout=0.0)
MANY = LoraConfig(rank=128, dropout=0.05, targets=TARGETS)


@pytest.fixture(scope="module")
def device():
    return make_mesh(devices=jax.devices()[:1])


def compiled_bytes(model, num_adapters, batch_size, length, num_microbatches, mesh=None):
    optimizer = make_optimizer(OptimizerConfig(1e-3, 10))
    shardings = None
    if mesh is not None:
        shardings = place_training(mesh, model, optimizer, num_adapters, batch_size).step

    def start():
        adapters = init_adapters(jax.random.key(0), model.config, model.lora, num_adapters)
        return init_train_state(adapters, optimizer)

    def rows(dtype):
        return jax.ShapeDtypeStruct((num_adapters, batch_size, length), dtype)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_adapters))
    train_step = make_train_step(model, optimizer, shardings, num_microbatches)
    batch = Examples(rows(jnp.int32), rows(bool), rows(bool))
    lowered = train_step.lower(jax.eval_shape(start), param_shapes(model.config), batch, keys)
    return total_bytes(lowered)


def total_bytes(lowered):
    sizes = lowered.compile().memory_analysis()
    own = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + own + sizes.temp_size_in_bytes


@pytest.mark.parametrize(
    ("config", "lora", "remat", "num_adapters", "num_microbatches", "shape"),
    [
        (WIDE, FEW, "none", 1, 1, (4, 128)),
        (WIDE, FEW, "dots", 4, 2, (2, 160)),
        (WIDE, MANY, "full", 4, 1, (2, 96)),
        (VERBOSE, FEW, "dots", 1, 1, (4, 256)),
        (VERBOSE, MANY, "full", 4, 1, (8, 64)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (WIDE, FEW, "none", 1, 1, (2, 384)),
                (WIDE, FEW, "full", 1, 1, (4, 384)),
                (WIDE, MANY, "dots", 4, 2, (2, 96)),
                (VERBOSE, FEW, "none", 4, 2, (4, 64)),
            )
        ),
    ],
)
def test_training_takes_what_the_estimate_says(
    config, lora, remat, num_adapters, num_microbatches, shape, device
):
    model = Llama(dataclasses.replace(config, remat=remat), lora)
    estimate = training_memory(
        model, device, num_adapters=num_adapters, batch_size=shape[0], length=shape[1],
        num_microbatches=num_microbatches,
    )  # fmt: skip
    measured = compiled_bytes(model, num_adapters, *shape, num_microbatches)
    assert estimate.total == pytest.approx(measured, rel=0.2), f"{measured / 1e9}\n{estimate}"


def test_training_on_a_mesh_takes_what_the_estimate_says():
    """The vocabulary, cut over `fsdp`, is put together on every device."""
    config = dataclasses.replace(VERBOSE, remat="full", tie_word_embeddings=False)
    model, mesh = Llama(config, FEW), make_mesh(data=2, fsdp=4)
    estimate = training_memory(model, mesh, num_adapters=2, batch_size=8, length=128)
    with sharded(mesh):
        measured = compiled_bytes(model, 2, 8, 128, 1, mesh)
    assert estimate.total == pytest.approx(measured, rel=0.2), f"{measured / 1e9}\n{estimate}"


def test_hidden_states_between_layers_are_cut_by_tensor():
    config = LlamaConfig(512, 256, 704, 12, 8, 4, 32, 512, remat="full")
    model, mesh = Llama(config, FEW), make_mesh(data=2, tensor=4)
    estimate = training_memory(model, mesh, num_adapters=2, batch_size=2, length=128)
    with sharded(mesh):
        measured = compiled_bytes(model, 2, 2, 128, 1, mesh)
    with sharded(mesh, tuple({**dict(RULES), "residual": None}.items())):
        whole = compiled_bytes(model, 2, 2, 128, 1, mesh)
    assert estimate.total == pytest.approx(measured, rel=0.2), f"{measured / 1e9}\n{estimate}"
    assert whole - measured > 12 * 2 * 128 * 256 * 4 / 2  # of one adapter a device


@pytest.mark.parametrize(
    ("sizes", "megabytes"),
    [((8, 1, 1), 15396 + 4880), ((4, 2, 1), 9872 + 6305), ((2, 2, 2), 7207 + 7094)],
)
def test_a_tpu_takes_what_the_estimate_says(sizes, megabytes):
    """Llama-2-7B compiled for a v5p slice ahead of time: the table of docs/performance.md."""
    config = LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, dtype="bfloat16", remat="full")
    model = Llama(config, LoraConfig(rank=64, targets=TARGETS))
    mesh = AbstractMesh(sizes, AXES)
    estimate = training_memory(model, mesh, num_adapters=8, batch_size=8, length=512)
    assert estimate.total == pytest.approx(megabytes * 1e6, rel=0.1)


@pytest.mark.parametrize(("sizes", "gigabytes"), [((1, 1, 8), 40.0), ((2, 2, 8), 19.6)])
def test_nor_does_a_model_of_70b_take_more_or_less(sizes, gigabytes):
    """Compiled for v5p-16 and v6e-32 ahead of time: the table of docs/launching.md."""
    config = LlamaConfig(128256, 8192, 28672, 80, 64, 8, 128, 8192, dtype="bfloat16", remat="full")
    model, mesh = Llama(config, LoraConfig(rank=16, targets=TARGETS)), AbstractMesh(sizes, AXES)
    estimate = training_memory(
        model, mesh, num_adapters=11, batch_size=8, length=512, num_microbatches=4
    )
    assert estimate.total == pytest.approx(gigabytes * 1e9, rel=0.2)


@pytest.mark.parametrize(("num_adapters", "megabytes"), [(1, 15396 + 3300), (11, 34585 + 38502)])
def test_a_gpu_takes_what_the_estimate_says(num_adapters, megabytes):
    """Llama-2-7B compiled for an H100 ahead of time: figures of docs/performance.md."""
    config = LlamaConfig(32000, 4096, 11008, 32, 32, 32, 128, 4096, dtype="bfloat16", remat="full")
    model = Llama(config, LoraConfig(rank=64, targets=TARGETS))
    mesh = AbstractMesh((1, 1, 1), AXES)
    estimate = training_memory(model, mesh, num_adapters=num_adapters, batch_size=8, length=513)
    assert estimate.total == pytest.approx(megabytes * 1e6, rel=0.2)
    decoder = generation_memory(
        model, mesh, num_seats=3, batch_size=128, prompt_length=128, max_new_tokens=128
    )
    assert sum(decoder.held.values()) == pytest.approx((31616 + 33) * 1e6, rel=0.05)


def test_every_device_has_its_share(device):
    model = Llama(dataclasses.replace(WIDE, remat="full"), FEW)
    sizes = {"num_adapters": 4, "batch_size": 4, "length": 64}
    alone = training_memory(model, device, **sizes)
    shared = training_memory(model, make_mesh(data=2, fsdp=2, tensor=2), **sizes)
    kernels = alone.held["base weights"]
    assert shared.held["base weights"] == pytest.approx(kernels / 4, rel=0.01)
    for name in ("adapters", "optimizer", "gradients"):  # some factors are cut by tensor or fsdp
        assert alone.held[name] / 8 <= shared.held[name] <= alone.held[name] / 2
    activations = "activations"
    assert shared.held[activations] == pytest.approx(alone.held[activations] / 8, rel=0.1)
    logits = "logits of one chunk"
    assert shared.in_turns[logits] == alone.in_turns[logits] / 8


def test_more_microbatches_and_remat_take_less(device):
    def activations(remat, parts):
        model = Llama(dataclasses.replace(WIDE, remat=remat), FEW)
        estimate = training_memory(
            model, device, num_adapters=1, batch_size=4, length=64, num_microbatches=parts
        )
        return estimate.held["activations"]

    assert activations("none", 1) > 1.5 * activations("dots", 1) > 4 * activations("full", 1)
    assert activations("none", 4) == pytest.approx(activations("none", 1) / 4, rel=0.01)


def test_what_does_not_fit_is_refused_with_the_option_to_change(device, monkeypatch, caplog):
    model = Llama(dataclasses.replace(WIDE, remat="none"), FEW)
    estimate = training_memory(model, device, num_adapters=4, batch_size=8, length=256)
    assert estimate.largest == "activations"
    remedies = dict.fromkeys(estimate.held | estimate.in_turns, "other") | {"activations": "remat"}
    monkeypatch.setattr(memory, "device_bytes", lambda: estimate.total)
    with caplog.at_level(logging.INFO, logger="paretohqd_jax"):
        check_memory(estimate, "training", remedies)
    for name in (*remedies, "most at any time"):
        assert name in caplog.text
    monkeypatch.setattr(memory, "device_bytes", lambda: estimate.total - 1)
    with pytest.raises(InputError, match="training needs about .* for activations: remat"):
        check_memory(estimate, "training", remedies)
    monkeypatch.setattr(memory, "device_bytes", lambda: None)  # a platform that does not tell
    check_memory(estimate, "training", remedies)


def test_a_decoder_needs_its_cache_and_its_logits(device):
    model = Llama(dataclasses.replace(WIDE, dtype="bfloat16"), FEW)
    sizes = {"num_seats": 3, "prompt_length": 64, "max_new_tokens": 32}
    small, large = (generation_memory(model, device, batch_size=n, **sizes) for n in (8, 16))
    cache = 2 * 4 * 8 * 64 * 2 * 8 * 96  # keys and values, layers, heads, size, bytes, rows, tokens
    assert small.held["cache"] == cache and large.held["cache"] == 2 * cache
    assert small.in_turns["logits"] >= 8 * 2048 * 4
    assert small.held["base weights"] == large.held["base weights"]


@pytest.mark.parametrize(
    ("config", "num_rows", "sizes"),
    [(WIDE, 64, (1, 1, 1)), (VERBOSE, 256, (1, 1, 1)), (VERBOSE, 128, (1, 4, 2))],
)
def test_decoding_takes_what_the_estimate_says(config, num_rows, sizes):
    mesh = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    model = Llama(config, FEW)
    estimate = generation_memory(
        model, mesh, num_seats=3, batch_size=num_rows, prompt_length=64, max_new_tokens=64
    )

    def placed(x, axes=()):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P(*axes)))

    def arguments():
        stack = init_adapters(jax.random.key(0), config, FEW, 3)
        slots = empty_slots(config, num_rows, 128, 64)
        return side_by_side(stack, config.dtype), slots

    adapters, slots = jax.tree.map(placed, jax.eval_shape(arguments))
    in_cache = (("data", "fsdp"), "tensor")
    *both, lengths = slots.cache
    keys, values = (tuple(placed(x, in_cache) for x in arrays) for arrays in both)
    shapes = param_shapes(config)
    shardings = named_shardings(mesh, logical_axes(config), shapes)
    [first, *_] = jax.eval_shape(apart, shapes)["layers"]
    layer = jax.tree.map(
        lambda x, sharding: placed(x, sharding.spec[1:]), first, shardings["layers"]
    )
    params = {
        name: placed(shapes[name], shardings[name].spec) for name in shapes if name != "layers"
    } | {"layers": (layer,) * config.num_layers}
    options = [np.zeros(1, np.int32), *[np.float32(1)] * 2, *[np.int32(0)] * 2]
    with sharded(mesh, DECODING_RULES):
        lowered = decoder._advance.lower(
            model,
            params,
            adapters,
            slots._replace(cache=Cache(keys, values, lengths)),
            *options,
            top_k=0,
        )
        measured = total_bytes(lowered)
    # While tokens are drawn there is no shorter cache.
    expected = sum(estimate.held.values()) + estimate.in_turns["logits"]
    assert expected == pytest.approx(measured, rel=0.2), f"{measured / 1e9}\n{estimate}"


def test_the_host_tells_how_much_memory_a_device_has():
    assert 1e8 < memory.device_bytes() < 1e14
