"""The bytes a run needs on each device, estimated before any weights are loaded.

The estimates are checked against the compiler's own figures in the tests: for the CPU in float32
(of bfloat16 weights XLA keeps float32 copies there), and for a TPU in bfloat16 as
docs/performance.md has them.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from paretohqd_jax.data.batches import Examples
from paretohqd_jax.errors import InputError
from paretohqd_jax.models import llama, lora
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import CHUNK_SIZE
from paretohqd_jax.training.mesh import named_shardings
from paretohqd_jax.training.placement import num_slots
from paretohqd_jax.training.step import adapter_loss

PyTree = Any

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device: what is held all the time, and what takes turns."""

    held: dict[str, int]
    in_turns: dict[str, int]

    @property
    def total(self) -> int:
        """The most there is at any one time."""
        return sum(self.held.values()) + max(self.in_turns.values())

    @property
    def largest(self) -> str:
        """The name of the term that takes most."""
        busiest = max(self.in_turns, key=self.in_turns.get)
        terms = self.held | {busiest: self.in_turns[busiest]}
        return max(terms, key=terms.get)

    def __str__(self) -> str:
        rows = self.held | self.in_turns | {"most at any time": self.total}
        return "\n".join(f"  {name:<36}{size / 1e9:>10.3f} GB" for name, size in rows.items())


def training_memory(
    model: Llama,
    mesh: Mesh,
    *,
    num_adapters: int,
    batch_size: int,
    length: int,
    num_microbatches: int = 1,
    num_gradients: int = 1,
) -> Memory:
    """What `training.step` needs.

    Args:
      model: the network with its LoRA configuration.
      mesh: the devices.
      num_adapters: trained side by side.
      batch_size: rows per adapter and step.
      length: tokens per row, padding included.
      num_microbatches: parts each batch is computed in.
      num_gradients: of each adapter, of losses that are combined by their gradients.
    """
    slots = num_slots(mesh, num_adapters)
    base = _placed_bytes(mesh, *_base_weights(model))
    stack = _placed_bytes(mesh, lora.logical_axes(model.config, model.lora), _stack(model, slots))
    adapters = slots // mesh.shape["data"]
    rows = -(-batch_size // num_microbatches // mesh.shape["fsdp"])
    local = _local_model(model, mesh)
    # Hidden states are put together for products alone, and are not kept whole.
    cut = _changed(local, hidden_size=local.config.hidden_size // mesh.shape["tensor"])
    one_layer = _changed(cut, num_layers=1, remat="none")
    kept = adapters * _kept_bytes(cut, rows, length)
    gathered = _gathered_bytes(local, mesh)
    # The logits of a chunk of positions and their exponentials, in float32.
    logits = 2 * rows * min(CHUNK_SIZE, length) * local.config.vocab_size * 4
    return Memory(
        held={
            "base weights": base,
            "gathered embedding": gathered,
            "adapters": stack,
            # Adam's two moments, float32 like the adapters.
            "optimizer": 2 * stack,
            # Microbatches add theirs to a running sum.
            "gradients": stack * num_gradients * (1 if num_microbatches == 1 else 2),
            # The scan over layers wants the layers of several adapters in front.
            "adapters by layer": stack if adapters > 1 else 0,
            # What the forward pass keeps for the backward pass, which `remat` decides.
            "activations": kept,
        },
        in_turns={
            "logits of one chunk": adapters * logits,
            # As it arrives, before it is laid out for looking up tokens.
            "copy of the gathered embedding": gathered,
            # Its weights, taken out of the stack of all layers or gathered from other devices,
            # and what of its forward pass was not kept and is computed again.
            "one layer's backward pass": _layer_bytes(local)
            + num_gradients * adapters * _kept_bytes(one_layer, rows, length)
            - kept // local.config.num_layers,
        },
    )


def generation_memory(
    model: Llama,
    mesh: Mesh,
    *,
    num_seats: int,
    batch_size: int,
    prompt_length: int,
    max_new_tokens: int,
) -> Memory:
    """What `sampling` needs.

    Args:
      model: the network with its LoRA configuration.
      mesh: the devices.
      num_seats: adapters at hand side by side.
      batch_size: responses decoded together.
      prompt_length: tokens of the longest prompt, padding included.
      max_new_tokens: most tokens of a response.
    """
    local = _local_model(model, mesh)
    config = local.config
    size = jnp.dtype(config.dtype).itemsize
    rows = -(-batch_size // (mesh.shape["data"] * mesh.shape["fsdp"]))
    # Keys and values of one token in all layers.
    token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * size
    length = prompt_length + max_new_tokens
    return Memory(
        held={
            "base weights": _placed_bytes(mesh, *_base_weights(model)),
            # For looking up tokens and for logits, even where it is the same: laid out otherwise.
            "gathered embedding": 2 * _gathered_bytes(local, mesh),
            # In the model's dtype, whole on every device.
            "adapters": size * sum(x.size for x in jax.tree.leaves(_stack(model, num_seats))),
            "cache": rows * token * length,
        },
        in_turns={
            # Whole logits of a device's rows, their softmax, and the latter in blocks; float32.
            "logits": 3 * rows * model.config.vocab_size * 4,
            # The cache for shorter prompts, while it is copied into a longer one.
            "shorter cache": rows * token * (length - prompt_length // 4),
        },
    )


def check_memory(memory: Memory, purpose: str, remedies: Mapping[str, str]) -> None:
    """Shows the estimate and compares it with the device.

    Args:
      memory: the estimate.
      purpose: what it is for, in words.
      remedies: for each term of the estimate, which option makes it smaller.

    Raises:
      InputError: the device has less; names the largest term and the remedy.
    """
    limit = device_bytes()
    has = f"{limit / 1e9:.3f} GB" if limit else "an unknown amount"
    logger.info("estimated memory per device for %s, which has %s:\n%s", purpose, has, memory)
    if limit and memory.total > limit:
        raise InputError(
            f"{purpose} needs about {memory.total / 1e9:.2f} GB per device, which has "
            f"{limit / 1e9:.2f} GB; most of it is for {memory.largest}: "
            f"{remedies[memory.largest]}"
        )


def device_bytes() -> int | None:
    """The memory of one device of this process, None where the platform does not tell."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # simulated devices share the host's memory
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return host // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit")


def _placed_bytes(mesh: Mesh, names: PyTree, shapes: PyTree) -> int:
    """Bytes per device of arrays with these logical axes, as the rules cut them."""
    pair = shapes, named_shardings(mesh, names, shapes)
    return sum(
        math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize
        for array, sharding in zip(*map(jax.tree.leaves, pair), strict=True)
    )


def _base_weights(model: Llama) -> tuple[PyTree, PyTree]:
    return llama.logical_axes(model.config), llama.param_shapes(model.config)


def _stack(model: Llama, num_adapters: int) -> PyTree:
    """The shapes of a stack of adapters."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda: lora.init_adapters(key, model.config, model.lora, num_adapters))


def _local_model(model: Llama, mesh: Mesh) -> Llama:
    """A model of one device's share of heads, feed-forward and vocabulary."""
    parts, config = mesh.shape["tensor"], model.config
    return _changed(
        model,
        num_heads=config.num_heads // parts,
        num_kv_heads=config.num_kv_heads // parts,
        intermediate_size=config.intermediate_size // parts,
        vocab_size=config.vocab_size // parts,
    )


def _changed(model: Llama, **changes: Any) -> Llama:
    return Llama(dataclasses.replace(model.config, **changes), model.lora)


def _gathered_bytes(local: Llama, mesh: Mesh) -> int:
    """An embedding matrix, put together from the devices that its vectors are cut over."""
    config = local.config
    size = config.vocab_size * config.hidden_size * jnp.dtype(config.dtype).itemsize
    return size if mesh.shape["fsdp"] > 1 else 0


def _layer_bytes(model: Llama) -> int:
    sizes = model.config.projection_shapes().values()
    return sum(map(math.prod, sizes)) * jnp.dtype(model.config.dtype).itemsize


def _kept_bytes(model: Llama, num_rows: int, length: int) -> int:
    """Bytes that the forward pass keeps for the adapter's gradient, found by tracing it."""

    def kept(params: PyTree, adapter: PyTree, batch: Examples) -> PyTree:
        key = jax.random.key(0)
        return jax.vjp(lambda adapter: adapter_loss(model, params, adapter, batch, key), adapter)[1]

    adapter = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), _stack(model, 1))
    tokens = jax.ShapeDtypeStruct((num_rows, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((num_rows, length), bool)
    batch = Examples(tokens, mask, mask)
    with nn.logical_axis_rules(()):
        traced = jax.make_jaxpr(kept)(llama.param_shapes(model.config), adapter, batch)
    arguments = set(map(id, traced.jaxpr.invars))
    results = {id(var): var.aval for var in traced.jaxpr.outvars if id(var) not in arguments}
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in results.values())
