"""Low-rank adapters (Hu et al., arXiv 2106.09685) as a pytree of their own.

An adapter is `{"layers": {target: {"a": [L, in, r], "b": [L, r, out]}}}` in float32, the structure
that `Llama` reads from its collection `lora`; a reward model's has its "head" [2, D] besides. A
stack of adapters has one more leading axis `[num_adapters, ...]` on every leaf and is what
`jax.vmap` maps over. Where every row may have an adapter of its own, N of them lie side by side, of
each layer "a" [in, N, r] and "b" [N, r, out] (see `low_rank_update`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.layers import apart

if TYPE_CHECKING:
    from paretohqd_jax.models.llama_config import LlamaConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Rank, scale (alpha / rank), dropout on the adapter's input, and the adapted projections.

    The defaults are ParetoHqD's; its targets are not published, q and v are PEFT's for Llama.
    An adapter with a `head` also learns to read one number off hidden states (`reward_head`).
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    head: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise InputError(f"lora rank is {self.rank}: it must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"lora dropout is {self.dropout}: it must be in [0, 1)")
        if not self.targets:
            raise InputError(f"lora targets are empty: name some of {', '.join(TARGETS)}")
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(
                    f"lora target {target!r} does not exist: choose from {', '.join(TARGETS)}"
                )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def init_adapters(
    key: jax.Array, config: LlamaConfig, lora: LoraConfig, num_adapters: int
) -> dict[str, Any]:
    """A stack of fresh adapters that leave the model's output unchanged.

    As PEFT does: a ~ U(-1/sqrt(in), 1/sqrt(in)) and b = 0. Leaves are float32,
    `a` [num_adapters, L, in, r] and `b` [num_adapters, L, r, out], a `head` [num_adapters, 2, D] is
    0; adapter i depends on `key` and i alone.
    """

    def init_one(key: jax.Array) -> dict[str, Any]:
        adapter = {}
        for target in TARGETS:  # a fixed order: a target's values do not depend on the others
            key, target_key = jax.random.split(key)
            if target not in lora.targets:
                continue
            size_in, size_out = config.projection_shapes()[target]
            bound = size_in**-0.5
            shape = (config.num_layers, size_in, lora.rank)
            adapter[target] = {
                "a": jax.random.uniform(target_key, shape, jnp.float32, -bound, bound),
                "b": jnp.zeros((config.num_layers, lora.rank, size_out), jnp.float32),
            }
        head = {"head": jnp.zeros((2, config.hidden_size), jnp.float32)} if lora.head else {}
        return {"layers": adapter, **head}

    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_adapters))
    return jax.vmap(init_one)(keys)


def logical_axes(config: LlamaConfig, lora: LoraConfig) -> dict[str, Any]:
    """The logical name of each axis of a stack of adapters (see `training.mesh`).

    `a` is cut like the input of the projection it adapts, `b` like its output.
    """
    names = {}
    for target in lora.targets:
        axis_in, axis_out = config.projection_axes()[target]
        names[target] = {
            "a": ("adapter", "layers", axis_in, "rank"),
            "b": ("adapter", "layers", "rank", axis_out),
        }
    head = {"head": ("adapter", None, "norm")} if lora.head else {}
    return {"layers": names, **head}


def pad_adapters(adapters: Any, num_slots: int) -> Any:
    """The stack with zeros, adapters that change nothing, appended up to `num_slots`."""

    def padded(leaf: Any) -> jax.Array:
        return jnp.pad(leaf, [(0, num_slots - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))

    return jax.tree.map(padded, adapters)


def pad_rank(adapter: dict[str, Any], rank: int) -> dict[str, Any]:
    """The adapter with zeros up to `rank`, which change no update of the same scale.

    `adapter` has no leading axis.
    """

    def padded(factor: Any, axis: int) -> np.ndarray:
        missing = [(0, 0)] * factor.ndim
        missing[axis] = (0, rank - factor.shape[axis])
        return np.pad(factor, missing)

    return {
        "layers": {
            target: {"a": padded(factors["a"], -1), "b": padded(factors["b"], -2)}
            for target, factors in adapter["layers"].items()
        }
    }


def on_top(beneath: Any, adapters: Any) -> Any:
    """Adapters whose updates are the sums of two stacks': the ranks of `beneath` come first."""
    return _by_rank(
        beneath, adapters, lambda first, second, axis: jnp.concatenate([first, second], axis)
    )


def hold(adapters: Any, rank: int, still: Callable[[Any], Any]) -> Any:
    """The adapters, or a tree like them, with `still` of what belongs to the first `rank` ranks."""

    def held(leaf: Any, _: Any, axis: int) -> jax.Array:
        first, second = jnp.split(leaf, [rank], axis)
        return jnp.concatenate([still(first), second], axis)

    return _by_rank(adapters, adapters, held)


def _by_rank(first: Any, second: Any, function: Callable[[Any, Any, int], Any]) -> Any:
    """`function` of the factors of two adapters, or stacks, and of the axis of their ranks."""
    layers = {
        target: {
            name: function(first["layers"][target][name], second["layers"][target][name], axis)
            for name, axis in (("a", -1), ("b", -2))
        }
        for target in first["layers"]
    }
    return {"layers": layers}


def rank_of(adapter: dict[str, Any]) -> int:
    """The rank of an adapter or a stack."""
    return next(iter(adapter["layers"].values()))["a"].shape[-1]


def with_rank(lora: LoraConfig, rank: int) -> LoraConfig:
    """The configuration of adapters of another rank and the same scale."""
    if rank == lora.rank:
        return lora
    return dataclasses.replace(lora, rank=rank, alpha=lora.scale * rank)


def combine_adapters(
    adapters: dict[str, Any], weights: Sequence[float], lora: LoraConfig
) -> tuple[dict[str, Any], LoraConfig]:
    """One adapter whose update is the weighted sum of the updates of a stack of N.

    Exactly sum_i w_i (alpha / r) a_i b_i: the factors lie side by side, "a" [L, in, N r] and "b"
    [L, N r, out] times the weights, so the rank is N r. (Averages of `a` and of `b` would multiply
    one adapter's factor with another's.)

    Args:
      adapters: [N, ...] on every leaf.
      weights: N of them.
      lora: what the adapters share.

    Returns:
      The adapter, no leading axis, as numpy arrays, and its configuration, of the same scale.
    """
    layers = {
        target: {
            "a": np.concatenate(factors["a"], axis=-1),
            "b": np.concatenate([w * b for w, b in zip(weights, factors["b"], strict=True)], -2),
        }
        for target, factors in adapters["layers"].items()
    }
    size = len(weights)
    return {"layers": layers}, dataclasses.replace(
        lora, rank=size * lora.rank, alpha=size * lora.alpha
    )


def low_rank_update(
    x: jax.Array, a: jax.Array, b: jax.Array, adapter_ids: jax.Array | None = None
) -> jax.Array:
    """x @ a @ b of x [B, T, in], in x's dtype.

    With `adapter_ids` int32 [B], each row's own of several adapters side by side, a [in, N, r] and
    b [N, r, out]. All rows go through all of them in one matmul, and what is not a row's own is
    left out halfway: that beats gathering an adapter per row as long as N r is small beside `in`.
    """
    a, b = a.astype(x.dtype), b.astype(x.dtype)
    if adapter_ids is None:
        return (x @ a) @ b
    num_adapters, rank, size_out = b.shape
    low = (x @ a.reshape(-1, num_adapters * rank)).reshape(*x.shape[:2], num_adapters, rank)
    own = adapter_ids[:, None] == jnp.arange(num_adapters)  # [B, N]
    low = jnp.where(own[:, None, :, None], low, 0).reshape(*x.shape[:2], -1)
    return low @ b.reshape(-1, size_out)


@functools.partial(jax.jit, static_argnums=1)
def side_by_side(adapters: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A stack of adapters [N, ...] laid out for `low_rank_update`, each layer apart, in `dtype`."""
    layers = {
        target: {
            "a": jnp.moveaxis(factors["a"], 0, 2).astype(dtype),
            "b": jnp.moveaxis(factors["b"], 0, 1).astype(dtype),
        }
        for target, factors in adapters["layers"].items()
    }
    return apart({"layers": layers})
