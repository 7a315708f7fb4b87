"""Decoding over eight simulated devices gives the tokens of one."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from paretohqd_jax.models.layers import apart
from paretohqd_jax.models.llama import Llama, logical_axes, param_shapes
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY, load_pretrained
from paretohqd_jax.sampling import decoder
from paretohqd_jax.sampling.answerers import Answerer, alone
from paretohqd_jax.sampling.generation import generate_responses
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, named_shardings, sharded

pytestmark = pytest.mark.cpu
PROMPTS = ["one", "two and more", "three", "a", "five fives", "six", "seventh prompt", "8" * 30]


@pytest.fixture(scope="module")
def toy():
    config, params = load_pretrained(RANDOM_TOY)
    lora = LoraConfig(rank=2, alpha=4.0, targets=("v_proj", "down_proj"))
    adapters = init_adapters(jax.random.key(1), config, lora, 3)
    adapters = jax.tree.map(lambda leaf: np.asarray(leaf + 0.3), adapters)
    return Llama(config, lora), params, adapters, load_tokenizer(RANDOM_TOY)


ANSWERERS = [*alone(3), Answerer((0, 2), (0.4, 0.6)), Answerer((2, 1), (0.5, 0.5))]


def generate(toy, params, directory, batch_size):
    model, _, adapters, tokenizer = toy
    return generate_responses(
        model, params, adapters, tokenizer, [tokenizer(PROMPTS).input_ids] * 5, jax.random.key(0),
        SamplingConfig(max_new_tokens=12), eos_token_ids=(*range(24), 256),
        batch_size=batch_size, directory=directory, description="test", answerers=ANSWERERS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(toy, tmp_path_factory):
    return generate(toy, toy[1], tmp_path_factory.mktemp("alone"), batch_size=5)


@pytest.mark.parametrize(
    "axes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2), (1, 4, 2)]
)
def test_responses_do_not_depend_on_the_mesh(toy, alone, tmp_path, axes):
    mesh = make_mesh(*axes)
    config = toy[0].config
    shardings = named_shardings(mesh, logical_axes(config), param_shapes(config))
    with sharded(mesh, DECODING_RULES):
        params = apart(jax.device_put(toy[1], shardings))
        assert generate(toy, params, tmp_path, batch_size=9).equals(alone)


def test_the_cache_stays_cut_over_the_devices(toy):
    """No device ever holds the rows of another: the compiled step gathers no keys or values."""
    model, params, _, _ = toy
    mesh = make_mesh(8, 1, 1)
    with sharded(mesh, DECODING_RULES):
        slots = decoder.empty_slots(model.config, 16, 40, 8)
        assert isinstance(slots.cache.keys[0].sharding, NamedSharding)
        assert slots.cache.keys[0].addressable_shards[0].data.shape[0] == 2
        options = decoder._options((0,), SamplingConfig(8))
        lowered = decoder._advance.lower(
            Llama(model.config), params, {}, slots, *options, np.int32(0), np.int32(9), top_k=0
        )
        compiled = lowered.compile().as_text()
    assert f"f32[16,{model.config.num_kv_heads},40," not in compiled
    assert f"f32[2,{model.config.num_kv_heads},40," in compiled
