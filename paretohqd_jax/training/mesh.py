"""The device mesh and the one table that says which axis of which array lies along it.

A mesh has three axes: `data` cuts stacks of adapters, `fsdp` the rows of a batch and the base
weights, `tensor` heads, feed-forward, vocabulary and, in training, the hidden states that layers
hand on, so that only what needs them whole puts them together. Every array's axes have logical
names (`models.llama.logical_axes`, `models.lora.logical_axes`, and the constraints inside the
model).
What cannot be cut evenly is an error: nothing is replicated but what the table says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from paretohqd_jax.errors import InputError

PyTree = Any
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]
AXES = ("data", "fsdp", "tensor")
RULES: Rules = (
    ("adapter", "data"),
    ("batch", "fsdp"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("residual", "tensor"),  # hidden states between layers
    ("layers", None),
    ("rank", None),
    ("norm", None),  # vectors as long as a hidden state or shorter
)
# Decoding has no axis of adapters: rows of all adapters mix, and every device takes some.
DECODING_RULES: Rules = tuple(
    (name, {"batch": ("data", "fsdp"), "residual": None}.get(name, axis))
    for name, axis in RULES
    if name != "adapter"
)
# The sizes users know; other names stand for themselves in messages.
WORDS = {
    "embed": "the hidden size",
    "heads": "the number of attention heads",
    "kv_heads": "the number of key/value heads",
    "mlp": "the feed-forward size",
    "vocab": "the vocabulary",
    "residual": "the hidden size",
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices, those of other processes included.

    Args:
      data, fsdp, tensor: sizes of the axes; `data` -1 takes what the others leave.
      devices: those to use, all there are by default.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    rest, remainder = divmod(len(devices), fsdp * tensor)
    if remainder or data not in (-1, rest):
        fitting = math.gcd(fsdp * tensor, len(devices))
        remedy = (
            f"axes fsdp and tensor with a product that divides {len(devices)}, such as {fitting}"
            if remainder
            else f"config.mesh.data={rest}, or -1 for whatever is left"
        )
        raise InputError(
            f"config.mesh with data={data}, fsdp={fsdp}, tensor={tensor} does not fit the number "
            f"of devices, {len(devices)}; use {remedy}"
        )
    # jax.make_mesh splits no side of a slice but v5e's: it refuses 2, 2, 8 on a v6e slice of 4 x 8.
    placed = create_device_mesh((rest, fsdp, tensor), devices, allow_split_physical_axes=True)
    # Auto is the compiler's partitioning from the constraints given; JAX's default is Explicit.
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextmanager
def sharded(mesh: Mesh, rules: Rules = RULES) -> Iterator[None]:
    """Everything traced inside is partitioned over `mesh` by the rules.

    On a single device there are no rules: programs are those without a mesh.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules if mesh.size > 1 else ()):
        yield


def check_sizes(mesh: Mesh, sizes: Mapping[str, int], words: Mapping[str, str] = WORDS) -> None:
    """Checks that axes can be cut evenly.

    Args:
      mesh: to cut them over.
      sizes: by logical name.
      words: what to call them.

    Raises:
      InputError: names what cannot be cut, its size, the mesh axis and the remedy.
    """
    for name, size in sizes.items():
        axis = dict(RULES)[name]
        parts = 1 if axis is None else mesh.shape[axis]
        if size % parts:
            # What suits the other sizes on this mesh axis and the number of devices too.
            others = [other for key, other in sizes.items() if dict(RULES)[key] == axis]
            most = math.gcd(mesh.size, *others)
            fitting = [str(d) for d in range(1, most + 1) if most % d == 0]
            raise InputError(
                f"{words.get(name, name)} ({size}) cannot be cut into config.mesh.{axis}={parts} "
                f"equal parts; set config.mesh.{axis} to {' or '.join(fitting)}"
            )


def named_shardings(mesh: Mesh, names: PyTree, shapes: PyTree) -> PyTree:
    """Where each array lies on the mesh.

    Args:
      mesh: the mesh.
      names: for each array a tuple with the logical name of each axis, None for one not cut.
      shapes: the arrays, or anything that has their `shape`.

    Returns:
      A tree of NamedSharding with the structure of `shapes`.

    Raises:
      InputError: an axis cannot be cut evenly.
      ValueError: the names do not fit the array, or put two of its axes on one mesh axis.
    """

    def sharding(path: Any, array: Any, names: tuple[str | None, ...]) -> NamedSharding:
        where = jax.tree_util.keystr(path)
        if len(names) != len(array.shape):
            raise ValueError(f"{where} has shape {array.shape} and axes named {names}")
        taken: dict[str, str] = {}
        for name, size in zip(names, array.shape, strict=True):
            axis = None if name is None else dict(RULES)[name]
            if axis is None:
                continue
            if axis in taken:
                raise ValueError(
                    f"{where}: axes {taken[axis]!r} and {name!r} both lie on mesh axis {axis!r}"
                )
            taken[axis] = name
            check_sizes(mesh, {name: size}, {name: f"axis {name!r} of {where}"})
        return NamedSharding(mesh, nn.logical_to_mesh_axes(names, RULES))

    return jax.tree_util.tree_map_with_path(sharding, shapes, names)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
