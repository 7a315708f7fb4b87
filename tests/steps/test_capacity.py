"""What is checked before devices are filled, and the remedies that are named."""

from __future__ import annotations

import jax
import pytest

from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.sampling import generation, schedule
from paretohqd_jax.sampling.answerers import alone
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps import capacity
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.mesh import make_mesh

SAMPLING = SamplingConfig(max_new_tokens=4)


@pytest.fixture
def checked(monkeypatch):
    """What was asked of `check_memory`: estimates and remedies."""
    calls = []
    monkeypatch.setattr(
        capacity, "check_memory", lambda memory, _, remedies: calls.append((memory, remedies))
    )
    return calls


def toy(dtype="float32", **mesh):
    devices = jax.devices()[: mesh.get("fsdp", 1) * mesh.get("data", 1)]
    lora = LoraConfig(rank=2, targets=("v_proj",))
    mesh = make_mesh(**mesh, devices=devices)
    return BaseModel("random:toy", dtype, "full", "{prompt}", lora, mesh=mesh)


@pytest.mark.parametrize(
    ("fsdp", "num_microbatches", "remedy"),
    [
        (1, 1, "raise config.train.num_microbatches, to 8 at most"),
        (4, 1, "raise config.train.num_microbatches, to 2 at most"),
        (4, 2, "lower config.train.batch_size or config.data.max_tokens"),
    ],
)
def test_no_more_microbatches_are_proposed_than_the_mesh_allows(
    fsdp, num_microbatches, remedy, checked
):
    capacity.check_training_memory(toy(fsdp=fsdp), 2, 8, 64, num_microbatches)
    [(_, remedies)] = checked
    assert remedies["activations"] == remedies["logits of one chunk"] == remedy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_smaller_dtype_is_proposed_where_there_is_one(dtype, checked):
    capacity.check_training_memory(toy(dtype), 2, 8, 64, 1)
    [(_, remedies)] = checked
    assert ("dtype" in remedies["base weights"]) == (dtype == "float32")


def test_the_decoder_that_is_estimated_is_the_one_that_runs(checked, monkeypatch, tmp_path):
    """Nine adapters, four seats, prompts of 1 and 17 tokens padded to 24."""
    base = toy()
    adapters = init_adapters(jax.random.key(0), base.config, base.lora, 9)
    prompts = [[[7], [7] * 17]] * 9
    capacity.check_generation_memory(base, prompts, alone(9), SAMPLING, 2, "respond", "evaluate")
    [(memory, _)] = checked
    seen = []

    def watched(model, params, stack, slots, *rest, **options):
        seen.append((sum(x.nbytes for x in jax.tree.leaves(stack)), slots.length))
        return advance(model, params, stack, slots, *rest, **options)

    advance = schedule.advance
    monkeypatch.setattr(schedule, "advance", watched)
    generation.generate_responses(
        base.model, base.params, adapters, base.tokenizer, prompts, jax.random.key(0), SAMPLING,
        eos_token_ids=base.eos_token_ids, batch_size=2, directory=tmp_path, description="test",
    )  # fmt: skip
    [stack_bytes] = {stack for stack, _ in seen}
    assert memory.held["adapters"] == stack_bytes
    longest = max(length for _, length in seen)
    config = base.config
    token = 2 * 4 * config.num_layers * config.num_kv_heads * config.head_dim
    assert memory.held["cache"] == 2 * token * longest and longest == 24 + 4


def test_seats_are_whole_on_every_device(checked):
    for mesh in ({}, {"data": 2, "fsdp": 2}):
        capacity.check_generation_memory(
            toy(**mesh), [[[7]] * 9] * 9, alone(9), SAMPLING, 8, "generate", "generate"
        )
    one, four = (memory.held["adapters"] for memory, _ in checked)
    assert one == four > 0
