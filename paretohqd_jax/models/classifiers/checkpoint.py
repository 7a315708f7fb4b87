"""From a checkpoint's tensors to a classifier's params, by a table that says where each lies.

The table is the params' own tree with a `Tensor` for every array.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models import shards
from paretohqd_jax.models.classifiers.layers import ACTIVATIONS
from paretohqd_jax.models.sharding import on_all_devices


class Tensor(NamedTuple):
    """A tensor of a checkpoint, or with `num_layers` one of each layer, stacked when read."""

    name: str  # with {} for the layer's number
    shape: tuple[int, ...]  # as stored
    transposed: bool = False
    num_layers: int | None = None

    def names(self) -> list[str]:
        if self.num_layers is None:
            return [self.name]
        return [self.name.format(layer) for layer in range(self.num_layers)]


def linear(
    name: str, size_in: int, size_out: int, num_layers: int | None = None, bias: bool = True
) -> dict[str, Tensor]:
    """A torch linear map, stored [out, in]."""
    params = {"kernel": Tensor(f"{name}.weight", (size_out, size_in), True, num_layers)}
    if bias:
        params["bias"] = Tensor(f"{name}.bias", (size_out,), False, num_layers)
    return params


def norm(name: str, size: int, num_layers: int | None = None) -> dict[str, Tensor]:
    """A layer norm."""
    return {
        "scale": Tensor(f"{name}.weight", (size,), False, num_layers),
        "bias": Tensor(f"{name}.bias", (size,), False, num_layers),
    }


def read_params(directory: Path, table: Any, ignored: str, dtype: str) -> Any:
    """The arrays that the table names, in `dtype`.

    All devices of the mesh in context, if there is one, hold the whole of each.

    `ignored` is a regular expression for tensors that may be there and are not needed. Raises
    InputError, naming the tensor, where one is missing, unexpected or of another shape.
    """
    tensors = jax.tree.leaves(table, is_leaf=lambda leaf: isinstance(leaf, Tensor))
    expected = {name: tensor.shape for tensor in tensors for name in tensor.names()}
    found, read = shards.open_weights(directory)
    shards.check_tensors(directory, found, expected, ignored)

    def one(name: str, tensor: Tensor) -> np.ndarray:
        array = read(name, (slice(None),) * len(tensor.shape))
        return (array.T if tensor.transposed else array).astype(jnp.dtype(dtype))

    def placed(tensor: Tensor) -> jax.Array:
        arrays = [one(name, tensor) for name in tensor.names()]
        return on_all_devices(arrays[0] if tensor.num_layers is None else np.stack(arrays))

    return jax.tree.map(placed, table, is_leaf=lambda leaf: isinstance(leaf, Tensor))


def random_params(key: jax.Array, table: Any, dtype: str = "float32") -> Any:
    """Random arrays of the table's shapes, normal with standard deviation 0.02, for benchmarks."""
    tensors, structure = jax.tree.flatten(table, is_leaf=lambda leaf: isinstance(leaf, Tensor))

    def drawn(key: jax.Array, tensor: Tensor) -> jax.Array:
        shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
        shape = shape if tensor.num_layers is None else (tensor.num_layers, *shape)
        return (0.02 * jax.random.normal(key, shape)).astype(dtype)

    keys = jax.random.split(key, len(tensors))
    return structure.unflatten([drawn(k, t) for k, t in zip(keys, tensors, strict=True)])


def read_activation(path: Path, name: str) -> str:
    """The name, if the activation is one of ours."""
    if name not in ACTIVATIONS:
        raise InputError(
            f"{path}: activation {name!r} is not supported; {', '.join(ACTIVATIONS)} are"
        )
    return name


def read_pad_token(values: dict[str, Any]) -> int | None:
    """The pad token's id, of which many checkpoints have none."""
    token = values.get("pad_token_id")
    return None if token is None else int(token)


def read_labels(values: dict[str, Any], default: int = 2) -> tuple[str, ...]:
    """The names of a classifier's outputs in their order; `default` many if it has none."""
    listed = values.get("id2label") or {}
    if not listed:
        return tuple(f"LABEL_{index}" for index in range(values.get("num_labels") or default))
    return tuple(str(listed[index]) for index in sorted(listed, key=int))
