"""What the steps of a run cost: bytes of memory, and seconds as far as operations tell them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.models.llama import param_shapes
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.schedule import num_seats
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.memory import generation_memory, training_memory

UTILISATION = 0.3  # of the speed of one large matrix product, that a whole step reaches
PROBE = 1024  # rows and columns of the matrices of that product


class Cost(NamedTuple):
    """Bytes of each device, and seconds."""

    memory: int
    seconds: float


class Speed(NamedTuple):
    """What one device reaches, in a second: floating-point operations, and bytes read."""

    operations: float
    bytes_read: float


def measure_speed(dtype: str) -> Speed:
    """Times a product of two matrices, and the reading of one, on the first device."""
    matrix = jnp.ones((PROBE, PROBE), dtype)
    large = jnp.ones((16 * PROBE, PROBE), dtype)
    product = _seconds(jax.jit(jnp.matmul), matrix, matrix)
    reading = _seconds(jax.jit(jnp.max), large)
    return Speed(2 * PROBE**3 / product, large.nbytes / reading)


def _seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """The least of several calls, after the one that compiles."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def training_cost(base: BaseModel, speed: Speed, options: Mapping[str, Any], length: int) -> Cost:
    """Of a step that fine-tunes with these options on rows of `length` tokens, padding included."""
    num_adapters = len(options["adapter_names"])
    batch_size = options["batch_size"] * options.get("num_responses", 1)
    memory = training_memory(
        base.model, base.mesh, num_adapters=num_adapters, batch_size=batch_size, length=length,
        num_microbatches=options["num_microbatches"],
        num_gradients=options.get("num_gradients", 1),
    )  # fmt: skip
    # Forward, backward to the activations, and where these are not kept, forward again.
    operations = (6 if base.remat == "full" else 4) * _num_params(base)
    tokens = options["num_steps"] * num_adapters * batch_size * length
    return Cost(
        memory.total, operations * tokens / (UTILISATION * speed.operations * _devices(base))
    )


def decoding_cost(
    base: BaseModel,
    speed: Speed,
    group: ConfigDict,
    num_models: int,
    num_prompts: int,
    prompt_length: int,
) -> Cost:
    """Of a step in which models answer prompts, `group` being its options.

    Where several adapters answer together, each counts as a model.
    The whole of `max_new_tokens` is counted for every answer; few are so long.
    """
    [prompt_length] = padded_lengths([prompt_length], 1)
    memory = generation_memory(
        base.model, base.mesh, num_seats=num_seats(num_models, num_prompts, group.batch_size),
        batch_size=group.batch_size, prompt_length=prompt_length,
        max_new_tokens=group.max_new_tokens,
    )  # fmt: skip
    num_answers = num_models * num_prompts
    num_params, devices = _num_params(base), _devices(base)
    tokens = num_answers * (prompt_length + group.max_new_tokens)
    computing = 2 * num_params * tokens / (UTILISATION * speed.operations * devices)
    weights = num_params * np.dtype(jnp.dtype(base.config.dtype)).itemsize
    num_reads = -(-num_answers // group.batch_size) * group.max_new_tokens
    cut = devices // base.mesh.shape["data"]  # devices that share one copy of the weights
    reading = num_reads * weights / (speed.bytes_read * cut)
    return Cost(memory.total, max(computing, reading))


def _num_params(base: BaseModel) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(param_shapes(base.config)))


def _devices(base: BaseModel) -> int:
    return base.mesh.devices.size
