"""Where the arrays of a training run lie on a mesh, and what of them checkpoints hold.

The stack of adapters is cut over the mesh axis `data`. If its size does not divide, it is filled
up with zeros: an adapter of zeros whose rows carry no loss has no gradient, so that neither Adam
nor weight decay ever move it. Checkpoints hold the real adapters alone and can be resumed on any
mesh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from paretohqd_jax.models import llama, lora
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.training.mesh import named_shardings, replicated
from paretohqd_jax.training.step import StepShardings, TrainState, init_train_state

logger = logging.getLogger(__name__)
PyTree = Any


class Placement(NamedTuple):
    """A stack of adapters in training on a mesh."""

    mesh: Mesh
    num_adapters: int
    num_slots: int
    step: StepShardings
    saved: dict[str, PyTree]  # what checkpoints hold, as jax.ShapeDtypeStruct with shardings


def place_training(
    mesh: Mesh,
    model: Llama,
    optimizer: optax.GradientTransformation,
    num_adapters: int,
    batch_size: int,
    carried: PyTree = (),
) -> Placement:
    """Decides where everything lies; `batch_size` is rows per adapter and step.

    `carried` is what the objective carries from step to step.

    Raises:
      InputError: an axis of an array cannot be cut evenly over the mesh.
    """
    slots = num_slots(mesh, num_adapters)
    if slots > num_adapters:
        logger.info(
            "config.mesh.data=%d: %d of %d places stay empty; a divisor of the %d adapters would "
            "leave none", mesh.shape["data"], slots - num_adapters, slots, num_adapters,
        )  # fmt: skip
    state, keys = jax.eval_shape(
        lambda: _start(
            _fresh_stack(model, 0, num_adapters), optimizer, 0, num_adapters, slots, carried
        )
    )
    adapter_names = lora.logical_axes(model.config, model.lora)
    optimizer_names = optax.tree_map_params(
        optimizer, lambda _, names: names, state.optimizer_state, adapter_names,
        transform_non_params=lambda _: ("adapter",),
    )  # fmt: skip
    rows = jax.ShapeDtypeStruct((slots, batch_size), np.int32)
    carried_names = jax.tree.map(lambda leaf: ("adapter", *[None] * (leaf.ndim - 1)), state.carried)
    state_names = TrainState((), adapter_names, optimizer_names, carried_names)
    step = StepShardings(
        state=named_shardings(mesh, state_names, state),
        params=named_shardings(
            mesh, llama.logical_axes(model.config), llama.param_shapes(model.config)
        ),
        batch=named_shardings(mesh, ("adapter", "batch"), rows),
        keys=named_shardings(mesh, ("adapter",), keys),
        metrics=replicated(mesh),
    )
    saved = jax.eval_shape(lambda state, keys: _cut(state, keys, num_adapters), state, keys)
    saved_names = _parts(state_names, ("adapter", None))
    saved = jax.tree.map(lambda leaf, names: _saved_like(mesh, leaf, names), saved, saved_names)
    return Placement(mesh, num_adapters, slots, step, saved)


def _saved_like(
    mesh: Mesh, leaf: jax.ShapeDtypeStruct, names: tuple[str | None, ...]
) -> jax.ShapeDtypeStruct:
    """Where the stack itself cannot be cut over `data`, its layers or ranks are."""
    data = mesh.shape["data"]
    if leaf.ndim and leaf.shape[0] % data:
        names = (None, *names[1:])
        for axis, (name, size) in enumerate(zip(names, leaf.shape, strict=True)):
            if name in ("layers", "rank") and size % data == 0:
                names = (*names[:axis], "adapter", *names[axis + 1 :])
                break
    sharding = named_shardings(mesh, names, leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def num_slots(mesh: Mesh, num_adapters: int) -> int:
    """The size of a filled up stack of adapters: the next multiple of the mesh axis `data`."""
    return -(-num_adapters // mesh.shape["data"]) * mesh.shape["data"]


def fresh_adapters(mesh: Mesh, model: Llama, seed: int, num_adapters: int) -> PyTree:
    """The filled up stack of `init_adapters`, every device making its own part."""

    def init() -> PyTree:
        stack = _fresh_stack(model, seed, num_adapters)
        return lora.pad_adapters(stack, num_slots(mesh, num_adapters))

    names = lora.logical_axes(model.config, model.lora)
    return jax.jit(init, out_shardings=named_shardings(mesh, names, jax.eval_shape(init)))()


def _fresh_stack(model: Llama, seed: int, num_adapters: int) -> PyTree:
    return lora.init_adapters(jax.random.key(seed), model.config, model.lora, num_adapters)


def place_adapters(mesh: Mesh, model: Llama, adapters: PyTree) -> PyTree:
    """A filled up stack of numpy arrays on the mesh; each device gets its own part alone."""
    slots = num_slots(mesh, jax.tree.leaves(adapters)[0].shape[0])
    stack = jax.eval_shape(lambda: lora.pad_adapters(adapters, slots))
    shardings = named_shardings(mesh, lora.logical_axes(model.config, model.lora), stack)
    return jax.tree.map(
        lambda leaf, to, sharding: _from_host(to.shape, sharding, leaf.__getitem__),
        adapters, stack, shardings,
    )  # fmt: skip


def place_on_top(mesh: Mesh, model: Llama, beneath: PyTree, seed: int) -> PyTree:
    """A filled up stack of fresh adapters on top of numpy arrays `[num_adapters, ...]`.

    The ranks of `model` are those of both together.
    """
    own = lora.rank_of(beneath)
    lower, upper = (
        Llama(model.config, lora.with_rank(model.lora, rank))
        for rank in (own, model.lora.rank - own)
    )
    num_adapters = jax.tree.leaves(beneath)[0].shape[0]
    parts = (place_adapters(mesh, lower, beneath), fresh_adapters(mesh, upper, seed, num_adapters))
    shardings = named_shardings(
        mesh, lora.logical_axes(model.config, model.lora), jax.eval_shape(lora.on_top, *parts)
    )
    return jax.jit(lora.on_top, out_shardings=shardings)(*parts)


def place_batch(placement: Placement, examples: PyTree, rows: np.ndarray) -> PyTree:
    """The batch of one step, `[num_slots, batch_size, ...]` arrays on the mesh.

    Args:
      placement: of the run.
      examples: numpy arrays `[num_adapters, num_rows, ...]`.
      rows: the rows of each adapter, int `[num_adapters, batch_size]`; each process gathers those
        of its own devices.
    """

    def placed(array: np.ndarray) -> jax.Array:
        def read(index: tuple[slice, ...]) -> np.ndarray:
            own = rows[index[:2]]
            return array[index[0]][np.arange(len(own))[:, None], own]

        shape = (placement.num_slots, rows.shape[1], *array.shape[2:])
        return _from_host(shape, placement.step.batch, read)

    return jax.tree.map(placed, examples)


def _from_host(
    shape: tuple[int, ...],
    sharding: NamedSharding,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
    """An array of what `read` gives for each device's slices; adapters it lacks become zeros."""

    def part(index: tuple[slice, ...]) -> np.ndarray:
        own = read(index)
        missing = len(range(*index[0].indices(shape[0]))) - len(own)
        return np.pad(own, [(0, missing)] + [(0, 0)] * (own.ndim - 1))

    return jax.make_array_from_callback(shape, sharding, part)


def start(
    placement: Placement,
    adapters: PyTree,
    optimizer: optax.GradientTransformation,
    seed: int,
    carried: PyTree = (),
) -> tuple[TrainState, jax.Array]:
    """State and dropout keys before the first step; the memory of `adapters` is given away."""
    num_adapters, slots = placement.num_adapters, placement.num_slots
    return jax.jit(
        lambda adapters: _start(adapters, optimizer, seed, num_adapters, slots, carried),
        out_shardings=(placement.step.state, placement.step.keys),
        donate_argnums=0,
    )(adapters)


def _start(
    adapters: PyTree,
    optimizer: optax.GradientTransformation,
    seed: int,
    num_adapters: int,
    slots: int,
    carried: PyTree,
) -> tuple[TrainState, jax.Array]:
    stacks = lora.pad_adapters((adapters, carried), slots)
    state = init_train_state(stacks[0], optimizer, stacks[1])
    keys = jax.random.split(jax.random.key(seed), num_adapters)
    return state, _padded_keys(jax.random.key_data(keys), slots)


def to_save(placement: Placement, state: TrainState, keys: jax.Array) -> dict[str, PyTree]:
    """The state as checkpoints hold it."""
    if placement.num_slots == placement.num_adapters:
        return _parts(state, jax.random.key_data(keys))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, placement.saved)
    return jax.jit(_cut, static_argnums=2, out_shardings=shardings)(
        state, keys, placement.num_adapters
    )


def _cut(state: TrainState, keys: jax.Array, num_adapters: int) -> dict[str, PyTree]:
    whole = _parts(state, jax.random.key_data(keys))
    return jax.tree.map(lambda leaf: leaf[:num_adapters] if leaf.ndim else leaf, whole)


def _parts(state: TrainState, keys: Any) -> dict[str, PyTree]:
    """The state's parts and the keys by name, but for what is carried where that is nothing."""
    parts = {**state._asdict(), "keys": keys}
    return {name: part for name, part in parts.items() if name != "carried" or part != ()}


def resume(placement: Placement, saved: dict[str, PyTree]) -> tuple[TrainState, jax.Array]:
    """State and dropout keys of a checkpoint, whose memory is given away where it is of use."""
    slots = placement.num_slots

    def filled_up(stacks: PyTree, step: jax.Array, keys: jax.Array) -> tuple[TrainState, jax.Array]:
        return TrainState(step, *lora.pad_adapters(stacks, slots)), _padded_keys(keys, slots)

    return jax.jit(
        filled_up, out_shardings=(placement.step.state, placement.step.keys),
        donate_argnums=0 if slots == placement.num_adapters else (),
    )(
        (saved["adapters"], saved["optimizer_state"], saved.get("carried", ())), saved["step"],
        saved["keys"],
    )  # fmt: skip


def _padded_keys(key_data: jax.Array, slots: int) -> jax.Array:
    return jax.random.wrap_key_data(lora.pad_adapters(key_data, slots))
