"""Adapters of policies: out of the stacks of a run, into one stack that answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig, combine_adapters, pad_rank
from paretohqd_jax.policies import Policy
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters

Adapter = tuple[dict[str, Any], LoraConfig]  # no leading axis, and its configuration


def adapters_of(
    policies: Sequence[Policy], stacks: dict[str, list[str]], workdir: Path, base: BaseModel
) -> list[Adapter]:
    """The adapter with which each policy answers; that of the base model changes nothing.

    Args:
      policies: of a run.
      stacks: the names of the adapters in each stack of the run.
      workdir: the run directory.
      base: the run's base model.

    Raises:
      InputError: a stack is damaged or another run's, or a policy mixes logits.
    """
    mixing = [policy.label for policy in policies if policy.combine != "update"]
    if mixing:
        raise InputError(
            f"policy {mixing[0]} mixes the logits of several adapters, which is not decoded yet; "
            "only policies that combine updates answer"
        )
    used = {name.rpartition("/")[0] for policy in policies for name in policy.adapters}
    loaded = {
        stack: load_adapters(workdir / stack, checkpoint_meta(base, stacks[stack]))
        for stack in sorted(used)
    }

    def one(name: str) -> Any:
        stack, _, adapter = name.rpartition("/")
        index = stacks[stack].index(adapter)
        return jax.tree.map(lambda leaf: leaf[index], loaded[stack])

    return [_combined(policy, [one(name) for name in policy.adapters], base) for policy in policies]


def _combined(policy: Policy, adapters: list[Any], base: BaseModel) -> Adapter:
    if not adapters:
        return _without_effect(base), base.lora
    if len(adapters) == 1:
        return adapters[0], base.lora
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *adapters)
    return combine_adapters(together, policy.weights, base.lora)


def _without_effect(base: BaseModel) -> dict[str, Any]:
    """An adapter of zeros."""
    shapes, config = base.config.projection_shapes(), base.config
    layers = {
        target: {
            "a": np.zeros((config.num_layers, shapes[target][0], base.lora.rank), np.float32),
            "b": np.zeros((config.num_layers, base.lora.rank, shapes[target][1]), np.float32),
        }
        for target in base.lora.targets
    }
    return {"layers": layers}


def stacked(adapters: Sequence[Adapter], lora: LoraConfig) -> tuple[dict[str, Any], LoraConfig]:
    """Adapters of the scale of `lora` as one stack `[num_adapters, ...]`, and its configuration.

    Those of a lower rank are filled up with zeros.
    """
    rank = max(own.rank for _, own in adapters)
    padded = [pad_rank(adapter, rank) for adapter, _ in adapters]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
    if rank != lora.rank:
        lora = dataclasses.replace(lora, rank=rank, alpha=lora.scale * rank)
    return stack, lora
