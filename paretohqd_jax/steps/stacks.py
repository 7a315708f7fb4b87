"""Adapters of policies: out of the stacks of a run, into one stack that answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig, combine_adapters, pad_rank, rank_of, with_rank
from paretohqd_jax.policies import BASE, Policy
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.logit_mixtures import Mixing
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters

Adapter = tuple[dict[str, Any], LoraConfig]  # no leading axis, and its configuration


def answerers_of(
    policies: Sequence[Policy], stacks: dict[str, list[str]], workdir: Path, base: BaseModel
) -> tuple[dict[str, Any], LoraConfig, list[Answerer]]:
    """What answers for each policy.

    Args:
      policies: of a run.
      stacks: the names of the adapters in each stack of the run.
      workdir: the run directory.
      base: the run's base model.

    Returns:
      A stack of adapters `[num_adapters, ...]`, each once; its configuration; and the answerer of
      each policy.

    Raises:
      InputError: a stack is damaged or another run's.
    """
    alone = [policy for policy in policies if not is_mixture(policy)]
    mixed = itertools.chain.from_iterable(members(each) for each in policies if is_mixture(each))
    once = {_parts(policy): policy for policy in (*alone, *mixed)}
    place = {parts: number for number, parts in enumerate(once)}
    answerers = []
    for policy in policies:
        adapters = tuple(place[_parts(member)] for member in members(policy))
        if not is_mixture(policy):
            answerers.append(Answerer(adapters))
            continue
        weights = [weight for _, weight in _parts(policy)]
        weights += [0.0] * (len(adapters) - len(weights))  # of the reference
        answerers.append(Answerer(adapters, tuple(weights), _mixing(policy)))
    stack, lora = stacked(adapters_of([*once.values()], stacks, workdir, base), base.lora)
    return stack, lora, answerers


def is_mixture(policy: Policy) -> bool:
    """Whether several adapters answer together, each by itself."""
    return len(members(policy)) > 1


def members(policy: Policy) -> list[Policy]:
    """The policies whose next-token distributions it mixes; itself if there is nothing to mix.

    Adapters without weight take no part; the reference is the last, where it takes part.
    """
    names = [name for name, _ in _parts(policy)]
    if policy.combine == "update" or len(names) == 1:
        return [policy]
    if _mixing(policy).reads_reference:
        names.append(policy.reference)
    return [Policy(name, None, (name,), (1.0,)) if name else BASE for name in names]


def _mixing(policy: Policy) -> Mixing:
    return Mixing(policy.divergence, policy.legacy_score)


def _parts(policy: Policy) -> tuple[tuple[str, float], ...]:
    """The adapters that have a weight, and their weights."""
    pairs = zip(policy.adapters, policy.weights, strict=True)
    return tuple((adapter, weight) for adapter, weight in pairs if weight)


def adapters_of(
    policies: Sequence[Policy], stacks: dict[str, list[str]], workdir: Path, base: BaseModel
) -> list[Adapter]:
    """The adapter with which each policy answers; that of the base model changes nothing.

    Arguments are those of `answerers_of`.

    Raises:
      InputError: a stack is damaged or another run's, or a policy mixes logits.
    """
    for policy in policies:
        if is_mixture(policy):
            raise InputError(
                f"policy {policy.label} mixes the next-token probabilities of "
                f"{' and '.join(policy.adapters)} while it answers, so no adapter and no merged "
                "model is the same; let `paretohqd chat` answer, or take a policy of one adapter"
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

    return [_combined(policy, one, base) for policy in policies]


def _combined(policy: Policy, one: Callable[[str], Any], base: BaseModel) -> Adapter:
    """The sum of the adapters, which `one` gives by name, that have a weight."""
    if not policy.adapters:
        return _without_effect(base), base.lora
    names, weights = zip(*_parts(policy), strict=True)
    adapters = [one(name) for name in names]
    lora = with_rank(base.lora, rank_of(adapters[0]))  # more than the run's if trained on others
    if len(names) == 1:
        return adapters[0], lora
    return combine_adapters(
        jax.tree.map(lambda *leaves: np.stack(leaves), *adapters), weights, lora
    )


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
    return stack, with_rank(lora, rank)
