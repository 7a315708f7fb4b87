"""Weights of all layers in stacks, for scans over them, or of each layer apart, for decoding.

A scan keeps programs small, and copies every layer's weights out of their stack before it reads
them: little beside the arithmetic of training, as much as all the rest of a decoding step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def are_apart(variables: dict[str, Any]) -> bool:
    """Whether a tree like `Llama`'s collection `params` or `lora` has a tree for each layer."""
    return isinstance(variables.get("layers"), tuple)


def apart(variables: dict[str, Any]) -> dict[str, Any]:
    """The tree with "layers" as a tuple of L trees, in place of one with [L, ...] on every leaf.

    A caller that keeps no reference to `variables` has only one leaf twice at any time.
    """
    leaves, structure = jax.tree.flatten(variables["layers"])
    rest = {name: leaf for name, leaf in variables.items() if name != "layers"}
    del variables
    for number, leaf in enumerate(leaves):
        leaves[number] = _parts(leaf)
    return {**rest, "layers": tuple(map(structure.unflatten, zip(*leaves, strict=True)))}


def stacked(variables: dict[str, Any]) -> dict[str, Any]:
    """What `apart` was given."""
    layers, structures = zip(*map(jax.tree.flatten, variables["layers"]), strict=True)
    rest = {name: leaf for name, leaf in variables.items() if name != "layers"}
    del variables
    leaves = [list(parts) for parts in zip(*layers, strict=True)]
    del layers
    for number, parts in enumerate(leaves):
        leaves[number] = _stack(parts)
        parts.clear()
    return {**rest, "layers": structures[0].unflatten(leaves)}


def layer_of(variables: dict[str, Any], number: int) -> PyTree:
    """One layer's tree, whichever way they are held."""
    layers = variables["layers"]
    return layers[number] if are_apart(variables) else jax.tree.map(lambda x: x[number], layers)


@jax.jit
def _parts(leaf: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(leaf)


_stack = jax.jit(jnp.stack)
