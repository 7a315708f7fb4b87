"""Which of a run's policies serves, by its label or by a preference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.neighbours import format_preference, mixture_weights, nearest_preference
from paretohqd_jax.pareto.targets import Targets
from paretohqd_jax.policies import (
    Policies,
    Policy,
    asked_for_scores,
    preference_labels,
    preferences_of,
)

ROUNDING = 0.005  # of a weight as people write it: 0.33 for a third


def labelled(policies: Policies, label: str) -> Policy:
    """The policy of that label in the served family; FAMILY/LABEL names one of another.

    Raises:
      InputError: there is none.
    """
    for family, policy in policies.every():
        if label == f"{family}/{policy.label}" or (
            label == policy.label and policy in policies.served
        ):
            return policy
    labels = ", ".join(policy.label for policy in policies.served)
    raise InputError(f"--policy {label}: there is no such policy; use one of {labels}")


def policy_for(
    family: Sequence[Policy],
    wanted: np.ndarray,
    interpolate: bool,
    targets: Targets | None = None,
) -> Policy:
    """The policy that serves a preference: its own, or the nearest, or a mixture of its neighbours.

    Args:
      family: of policies. Where they mix adapters, soups or by logits, which takes no training, any
        preference between theirs is served by a policy of its own.
      wanted: `[num_objectives]` on the simplex.
      interpolate: one that no policy has is served by the exact mixture of its neighbours' updates
        (`mixture_weights`), not by the nearest.
      targets: where policies ask one model for scores, any preference is served by asking for its
        own.

    Raises:
      InputError: a policy has no preference, or those to be mixed combine adapters differently or
        ask with words of their own.
    """
    preferences = preferences_of(family)
    if preferences is None:
        labels = ", ".join(policy.label for policy in family)
        raise InputError(f"these policies have no preferences; choose one by --policy: {labels}")
    nearest = family[nearest_preference(preferences, wanted)]
    if targets is not None and np.abs(np.array(nearest.preference) - wanted).max() >= ROUNDING:
        return asked_for_scores(nearest.adapters[0], wanted[None], targets)[0]
    interpolate = interpolate or any(len(policy.adapters) > 1 for policy in family)
    if not interpolate or np.abs(np.array(nearest.preference) - wanted).max() < ROUNDING:
        return nearest
    shares = mixture_weights(preferences, wanted)
    parts = [(policy, share) for policy, share in zip(family, shares, strict=True) if share]
    pattern = parts[0][0]  # of how adapters are combined; one by itself fits any
    weights: dict[str, float] = {}
    for policy, share in parts:
        pattern = policy if len(pattern.adapters) < 2 else pattern
        if policy.prompt is not None or not _combine_alike(policy, pattern):
            raise InputError(f"policy {policy.label} cannot be mixed with others; use its own")
        for adapter, weight in zip(policy.adapters, policy.weights, strict=True):
            weights[adapter] = weights.get(adapter, 0.0) + share * weight
    [label] = preference_labels(wanted[None])
    return dataclasses.replace(
        pattern, label=label, preference=tuple(wanted.tolist()),
        adapters=tuple(weights), weights=tuple(weights.values()),
    )  # fmt: skip


def _combine_alike(policy: Policy, other: Policy) -> bool:
    """Whether two policies combine adapters in the same way; one adapter alone, in any."""
    ways = [(p.combine, p.divergence, p.legacy_score, p.reference) for p in (policy, other)]
    return len(policy.adapters) == 1 or ways[0] == ways[1]


def describe(policy: Policy, asked: np.ndarray | None = None) -> str:
    """Which adapters answer; `asked` is the preference that somebody wanted."""
    parts = [
        f"{weight:.3g} of {adapter}" if len(policy.adapters) > 1 else adapter
        for adapter, weight in zip(policy.adapters, policy.weights, strict=True)
    ]
    text = f"{policy.label}: {' + '.join(parts) or 'the base model'}"
    if policy.combine == "logits" and len(parts) > 1:
        text += f", mixed at every token by {policy.divergence}" + ", legacy" * policy.legacy_score
    if policy.prompt is not None:
        text += f", asked {policy.prompt!r}"
    if asked is None or policy.preference is None:
        return text
    if np.abs(np.array(policy.preference) - asked).max() < ROUNDING:
        return text
    return f"{format_preference(asked)} was not trained, served by the nearest, {text}"
