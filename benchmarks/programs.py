"""The programs of a run, compiled for a mesh from shapes alone, and the least each must move."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import shapes


def train(options: Namespace, mesh: Any) -> Any:
    """The train step of all adapters."""
    import jax
    import jax.numpy as jnp

    from paretohqd_jax.data.batches import Examples
    from paretohqd_jax.models import llama, lora
    from paretohqd_jax.training import step
    from paretohqd_jax.training.placement import place_training

    config, lora_config = shapes.model_of(options, options.remat)
    model = llama.Llama(config, lora_config)
    optimizer = step.make_optimizer(step.OptimizerConfig(1e-4, num_steps=1000))
    placement = place_training(mesh, model, optimizer, options.adapters, options.rows)

    def arguments() -> tuple[Any, ...]:
        key = jax.random.key(0)
        stack = lora.init_adapters(key, config, lora_config, placement.num_slots)
        # A step works on all positions but the last.
        rows = jnp.zeros((placement.num_slots, options.rows, options.length + 1), jnp.int32)
        batch = Examples(rows, rows > 0, rows > 0)
        keys = jax.random.split(key, placement.num_slots)
        return step.init_train_state(stack, optimizer), batch, keys

    state, batch, keys = jax.eval_shape(arguments)
    train_step = step.make_train_step(
        model, optimizer, placement.step, num_microbatches=options.microbatches
    )
    return train_step.lower(state, llama.param_shapes(config), batch, keys)


def prefill(options: Namespace, mesh: Any) -> Any:
    """Prompts read into an eighth of the slots, as `sampling.schedule` does."""
    import numpy as np

    from paretohqd_jax.sampling import decoder
    from paretohqd_jax.sampling.slots import Requests

    num_rows = -(-options.slots // (8 * mesh.size)) * mesh.size
    ones = np.ones(num_rows, np.int32)
    requests = Requests(
        rows=ones,
        tokens=np.ones((num_rows, options.prompt), np.int32),
        lengths=ones,
        adapter_ids=ones[:, None],
        weights=np.ones((num_rows, 1), np.float32),
        keys=np.ones((num_rows, 2), np.uint32),
    )
    model, params, adapters, slots = _decoding(options, mesh)
    how = _whole(mesh, (requests, *_sampling()))
    return decoder._fill.lower(model, params, adapters, slots, *how, top_k=0)


def decode(options: Namespace, mesh: Any) -> Any:
    """Tokens drawn for all slots."""
    import numpy as np

    from paretohqd_jax.sampling import decoder

    how = _whole(mesh, (*_sampling(), np.int32(0), np.int32(64)))
    return decoder._advance.lower(*_decoding(options, mesh), *how, top_k=0)


def score(options: Namespace, mesh: Any) -> Any:
    """The likelihood of responses under the base model, as a reward."""
    import jax
    import numpy as np

    from paretohqd_jax.models import llama
    from paretohqd_jax.rewards.likelihood import ResponseLogProb

    config, _ = shapes.model_of(options)
    rows = np.ones((options.rows, options.length), np.int32)
    tokens, mask = _whole(mesh, (rows, rows > 0))
    apply = ResponseLogProb(llama.Llama(config), mean=True)
    return jax.jit(apply).lower({"params": _params(config, mesh)}, tokens, mask)


PROGRAMS = {"train": train, "prefill": prefill, "decode": decode, "score": score}


def compile_program(name: str, options: Namespace, mesh: Any) -> Any:
    """A program of `PROGRAMS`, compiled for the mesh."""
    import flax.linen as nn
    import jax

    from paretohqd_jax.training.mesh import DECODING_RULES, RULES

    rules = RULES if name == "train" else DECODING_RULES
    # Shapes alone: `training.mesh.sharded` would put small constants on devices that may not exist.
    with (
        jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
        nn.logical_axis_rules(rules if mesh.size > 1 else ()),
    ):
        return PROGRAMS[name](options, mesh).compile()


def least_bytes(name: str, options: Namespace, mesh: Any) -> float:
    """Of a device, for weights, adapters, their moments and the cache, each read or written once.

    Training reads the base once forward and once backward, and reads and writes adapters and
    moments. A decoding step reads all of the cache, whatever of it is in use. Only the axis
    `tensor` makes less of the base, which `fsdp` puts together for every product.
    """
    import numpy as np

    config, lora = shapes.model_of(options)
    base, adapter = shapes.matmul_weights(config, lora)
    base /= mesh.shape["tensor"]
    item = 4 if config.dtype == "float32" else 2
    token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * item
    cache = options.slots * (options.prompt + options.new_tokens) * token / mesh.size
    state = 3 * options.adapters * adapter * np.dtype(np.float32).itemsize / mesh.size
    written = options.slots // 8 * options.prompt * token / mesh.size
    return {
        "train": 2 * base * item + 2 * state,
        "prefill": (base + options.seats * adapter) * item + written,
        "decode": (base + options.seats * adapter) * item + cache,
        "score": base * item,
    }[name]


def least_flops(name: str, options: Namespace) -> float:
    """Of a program; a decoding step attends to all of the cache."""
    config, lora = shapes.model_of(options)
    per_row = shapes.forward_flops
    return {
        "train": options.adapters
        * shapes.training_flops(config, lora, options.rows, options.length),
        "prefill": per_row(config, lora, options.slots // 8, options.prompt),
        "decode": per_row(config, lora, options.slots, 1, options.prompt + options.new_tokens),
        "score": per_row(config, None, options.rows, options.length),
    }[name]


def _decoding(options: Namespace, mesh: Any) -> tuple[Any, ...]:
    """Model, weights, adapters side by side and slots."""
    import jax
    from jax.sharding import PartitionSpec

    from paretohqd_jax.models import llama, lora
    from paretohqd_jax.sampling.slots import empty_slots

    config, lora_config = shapes.model_of(options)

    def arguments() -> tuple[Any, Any]:
        stack = lora.init_adapters(jax.random.key(0), config, lora_config, options.seats)
        room = options.prompt + options.new_tokens
        slots = empty_slots(config, options.slots, room, options.new_tokens)
        return lora.side_by_side(stack, config.dtype), slots

    adapters, slots = _whole(mesh, jax.eval_shape(arguments))
    in_cache = PartitionSpec(("data", "fsdp"), "tensor")
    keys, values = (
        tuple(_placed(x, mesh, in_cache) for x in arrays)
        for arrays in (slots.cache.keys, slots.cache.values)
    )
    slots = slots._replace(cache=slots.cache._replace(keys=keys, values=values))
    params = _params(config, mesh)
    layer = jax.tree.map(
        lambda x: _placed(x, mesh, PartitionSpec(*x.sharding.spec[1:]), x.shape[1:]),
        params["layers"],
    )
    params["layers"] = (layer,) * config.num_layers
    return llama.Llama(config, lora_config), params, adapters, slots


def _params(config: Any, mesh: Any) -> dict[str, Any]:
    import jax

    from paretohqd_jax.models import llama
    from paretohqd_jax.training.mesh import named_shardings

    weights = llama.param_shapes(config)
    places = named_shardings(mesh, llama.logical_axes(config), weights)
    return jax.tree.map(lambda x, place: _placed(x, mesh, place.spec), weights, places)


def _sampling() -> tuple[Any, ...]:
    import numpy as np

    return np.ones(1, np.int32), np.float32(1), np.float32(1)


def _whole(mesh: Any, tree: Any) -> Any:
    import jax
    from jax.sharding import PartitionSpec

    return jax.tree.map(lambda x: _placed(x, mesh, PartitionSpec()), tree)


def _placed(x: Any, mesh: Any, spec: Any, shape: tuple[int, ...] | None = None) -> Any:
    import jax
    from jax.sharding import NamedSharding

    shape = x.shape if shape is None else shape
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(mesh, spec))
