"""How the context cuts logical axes over devices; without a mesh in context nothing is cut.

Models and samplers name the axes of their arrays (`flax.linen.with_logical_constraint`); the table
that maps names to the axes of a mesh and the mesh itself are `training.mesh`'s, entered as contexts
around what is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from paretohqd_jax.errors import InputError


def mesh_axes(name: str) -> tuple[str, ...]:
    """The mesh axes that the rules in context give to a logical axis; none without a mesh."""
    axes = dict(nn.get_logical_axis_rules()).get(name)
    if axes is None or jax.sharding.get_abstract_mesh().empty:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)


def num_shards(name: str) -> int:
    """Into how many pieces the context cuts a logical axis, 1 without a mesh.

    The size of an axis must be a multiple of it.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[axis] for axis in mesh_axes(name))


def whole_on_all_devices() -> NamedSharding | None:
    """Every device of the mesh in context holds the whole array; None without a mesh."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else NamedSharding(mesh, PartitionSpec())


def shardings_of(names: Any) -> Any:
    """Where arrays lie on the mesh in context by its rules; None without a mesh.

    `names` is a tree of tuples, with the logical name of each axis of an array.
    """
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return None
    return jax.tree.map(
        lambda axes: NamedSharding(
            mesh, PartitionSpec(*(mesh_axes(axis) or None for axis in axes))
        ),
        names,
        is_leaf=lambda axes: isinstance(axes, tuple),
    )


def check_cuts(source: str, sizes: Mapping[str, int]) -> None:
    """Raises InputError for an axis of a model that the context cannot cut evenly.

    `sizes` are by logical name; `source` is the model.
    """
    for name, size in sizes.items():
        if size % num_shards(name):
            raise InputError(
                f"{source}: its axis {name!r} ({size}) cannot be cut into {num_shards(name)} equal "
                "parts; change config.mesh.fsdp or config.mesh.tensor"
            )


def on_all_devices(array: np.ndarray) -> jax.Array:
    """The array, whole on every device of the mesh in context, those of other processes included.

    Without a mesh it is on the first device.
    """
    sharding = whole_on_all_devices()
    if sharding is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def vmap_adapters(function: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """`jax.vmap` over the logical axis "adapter".

    Arrays that `function` constrains are cut along the mapped axis as well, not gathered.
    """
    return jax.vmap(function, in_axes, spmd_axis_name=mesh_axes("adapter") or None)
