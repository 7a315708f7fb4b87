"""What a method leaves: families of policies. A policy says how the model of one trade-off answers.

It is data, not code: everything after training reads policies alone and never asks which method
made them. A family is a front of policies that are compared with each other; of several, the last
is what the method leaves and the others are what it went through.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.config.mod import DIVERGENCE
from paretohqd_jax.data.chat_template import put_in_words
from paretohqd_jax.data.conversations import in_words
from paretohqd_jax.data.scores_in_prompt import words_with
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json
from paretohqd_jax.pareto.targets import Targets

FILE = "policies.json"
BASE_FIELDS = ("source", "dtype", "prompt_format", "date", "lora")
COMBINATIONS = ("update", "logits")
LABEL = re.compile(r"[\w=+-][\w.,=+-]*")  # also the name of files, as are names of stacks
SUM_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Policy:
    """How one model answers.

    Attributes:
      label: what tables and file names say, such as `w0.50_0.50`.
      preference: `[num_objectives]` on the simplex, or None for a model that stands for none.
      adapters: the adapters that answer, as STACK/NAME; the base model has none.
      weights: how much each of them counts; they sum to one.
      combine: "update", the exact weighted sum of the adapters' updates (soups), or "logits", a
        mixture of their next-token distributions.
      divergence: what decides that mixture: "reverse_kl", the weighted product, "forward_kl",
        "jsd", or "alpha=0.5" and the like (`sampling.logit_mixtures`).
      legacy_score: the mixture is by the score of MOD's authors, not the exact one.
      reference: the adapter that those that are mixed were trained from; "" is the base model.
      prompt: what is asked in place of the user's words, a text with `{prompt}` in it once; None
        asks these as they are.
    """

    label: str
    preference: tuple[float, ...] | None = None
    adapters: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    combine: str = "update"
    divergence: str = "reverse_kl"
    legacy_score: bool = False
    reference: str = ""
    prompt: str | None = None

    def ask(self, prompt: str) -> str:
        """The prompt that this policy is given for a user's prompt, a conversation or a text."""
        return prompt if self.prompt is None else in_words(self.prompt, prompt)

    def chat_template(self, template: str) -> str:
        """The chat template that writes what `ask` asks, of one that writes prompts."""
        return template if self.prompt is None else put_in_words(template, self.prompt)


BASE = Policy("base model")


@dataclasses.dataclass(frozen=True)
class Policies:
    """The families of a run.

    Attributes:
      objectives: `[num_objectives]` names.
      base: the base model of all: `source`, `dtype`, `prompt_format` and the `date` that it is
        told, and `lora`, the options of the adapters.
      stacks: the names of the adapters in each stack of the run directory, in its order.
      families: by name, in the order they came about.
      targets: where policies ask one model for scores, the scores of any preference.
    """

    objectives: list[str]
    base: dict[str, Any]
    stacks: dict[str, list[str]]
    families: dict[str, list[Policy]]
    targets: Targets | None = None

    @property
    def served(self) -> list[Policy]:
        """The last family, which the method leaves."""
        return list(self.families.values())[-1]

    def every(self) -> list[tuple[str, Policy]]:
        """All policies with the names of their families, the base model, of none, first."""
        named = ([(name, policy) for policy in family] for name, family in self.families.items())
        return [("", BASE), *itertools.chain.from_iterable(named)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; without targets where there are none."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}


def preference_labels(preferences: np.ndarray) -> list[str]:
    """A label for each of `preferences [num_preferences, num_objectives]`: `w0.50_0.50`."""
    labels = ["w" + "_".join(f"{weight:.2f}" for weight in row) for row in preferences]
    if len(set(labels)) < len(labels):  # preferences closer than a hundredth
        labels = [f"{label}_{index}" for index, label in enumerate(labels)]
    return labels


def one_adapter_each(stack: str, preferences: np.ndarray) -> list[Policy]:
    """A family in which the adapters of a stack serve `preferences [num_adapters, M]` in order."""
    labels = preference_labels(preferences)
    return [
        Policy(label, tuple(preference), (f"{stack}/{label}",), (1.0,))
        for label, preference in zip(labels, preferences.tolist(), strict=True)
    ]


def mixtures(
    corners: Sequence[Policy],
    preferences: np.ndarray,
    combine: str = "update",
    *,
    shares: np.ndarray | None = None,
    **how: Any,
) -> list[Policy]:
    """A family in which each preference mixes models of one objective each by its weights.

    Args:
      corners: `[num_objectives]` policies of one adapter each, in the order of the objectives.
      preferences: `[num_preferences, num_objectives]`.
      combine: as of `Policy`. A model whose weight is 0 is left out; one alone answers as it is.
      shares: of the models in each mixture, `[num_preferences, num_objectives]`, where they are not
        the preference itself.
      **how: logits are mixed, as of `Policy`.
    """
    family, labels = [], preference_labels(preferences)
    shares = preferences if shares is None else shares
    for label, preference, own in zip(labels, preferences.tolist(), shares.tolist(), strict=True):
        parts = [(corner.adapters[0], w) for corner, w in zip(corners, own, strict=True) if w]
        adapters, weights = zip(*parts, strict=True)
        mixing = {"combine": combine, **how} if len(parts) > 1 else {}
        family.append(Policy(label, tuple(preference), adapters, weights, **mixing))
    return family


def asked_for_scores(adapter: str, preferences: np.ndarray, targets: Targets) -> list[Policy]:
    """A family that one adapter serves: of each preference `[N, M]` it is asked for the scores."""
    return [
        Policy(label, tuple(preference), (adapter,), (1.0,), prompt=words_with(scores))
        for label, preference, scores in zip(
            preference_labels(preferences), preferences.tolist(), targets.scores(preferences),
            strict=True,
        )
    ]  # fmt: skip


def write_policies(path: Path, policies: Policies) -> None:
    """Writes them as JSON.

    Raises:
      InputError: they say what cannot be.
    """
    check_policies(policies)
    write_json(path, policies.to_dict())


def read_policies(path: Path) -> Policies:
    """Reads what `write_policies` wrote.

    Raises:
      InputError: the file is not there, damaged, or says what cannot be.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        families = {
            name: [_policy(entry) for entry in family]
            for name, family in values["families"].items()
        }
        stacks = {stack: list(names) for stack, names in values["stacks"].items()}
        base = {name: values["base"][name] for name in BASE_FIELDS}
        targets = _targets(values["targets"]) if "targets" in values else None
        policies = Policies(values["objectives"], base, stacks, families, targets)
        check_policies(policies)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; the run's models are not trained yet, or it is not a run"
        ) from None
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        wrong = str(error) or type(error).__name__
        if not isinstance(error, InputError):
            wrong = f"damaged ({wrong:.120})"
        raise InputError(f"{path}: {wrong}; delete this file and run again") from error
    return policies


def _policy(entry: Mapping[str, Any]) -> Policy:
    known = [field.name for field in dataclasses.fields(Policy)]
    unknown = entry.keys() - set(known)
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    values = {name: tuple(value) if isinstance(value, list) else value
              for name, value in entry.items()}  # fmt: skip
    return Policy(**values)


def _targets(entry: Mapping[str, Any]) -> Targets:
    return Targets(**{name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()})


def check_policies(policies: Policies) -> None:
    """Raises InputError, naming the policy, for one that no run can have."""
    if not policies.families or not all(policies.families.values()):
        raise InputError("holds no policies")
    _check_texts(policies)
    if policies.targets and len(policies.targets.low) != len(policies.objectives):
        raise InputError(
            f"its targets are of {len(policies.targets.low)} objectives, not of "
            f"{len(policies.objectives)}"
        )
    adapters = {f"{stack}/{name}" for stack, names in policies.stacks.items() for name in names}
    for family, members in policies.families.items():
        labels = [policy.label for policy in members]
        if len(set(labels)) < len(labels):
            raise InputError(f"two policies of {family!r} have one label")
        for policy in members:
            wrong = _what_is_wrong(policy, len(policies.objectives), adapters)
            if wrong:
                raise InputError(f"policy {family}/{policy.label}: {wrong}")


def _check_texts(policies: Policies) -> None:
    """Raises InputError for names that are none, or no names of files where they have to be."""
    objectives = policies.objectives
    if not isinstance(objectives, list) or not all(isinstance(name, str) for name in objectives):
        raise InputError(f"its objectives {objectives!r} are no names")
    for name, told in policies.base.items():
        if name != "lora" and not isinstance(told, str):
            raise InputError(f"the base model's {name} {told!r} is no text")
    for name in (*policies.families, *policies.stacks):
        if not LABEL.fullmatch(name):
            raise InputError(f"the name {name!r} must match {LABEL.pattern}")


def _what_is_wrong(policy: Policy, num_objectives: int, adapters: set[str]) -> str:
    if not isinstance(policy.label, str) or not LABEL.fullmatch(policy.label):
        return f"its label must match {LABEL.pattern}"
    named = [*policy.adapters, *([policy.reference] if policy.reference else [])]
    missing = [name for name in named if name not in adapters]
    if missing:
        return f"there is no adapter {missing[0]!r}; there are {', '.join(sorted(adapters))}"
    if len(policy.weights) != len(policy.adapters):
        return f"has {len(policy.weights)} weights for {len(policy.adapters)} adapters"
    if policy.adapters and not _sum_to_one(policy.weights):
        return f"its weights {policy.weights} do not sum to 1"
    if policy.combine not in COMBINATIONS:
        return f"combine is {policy.combine!r}; it must be one of {', '.join(COMBINATIONS)}"
    if policy.combine == "logits" and (not policy.adapters or min(policy.weights) < 0):
        return f"mixes logits by weights {policy.weights}: they must be on the simplex, all >= 0"
    if not isinstance(policy.divergence, str) or not DIVERGENCE.fullmatch(policy.divergence):
        return f"divergence is {policy.divergence!r}; it must match {DIVERGENCE.pattern}"
    if not isinstance(policy.legacy_score, bool):
        return f"legacy_score is {policy.legacy_score!r}; it must be true or false"
    prompt = "{prompt}" if policy.prompt is None else policy.prompt
    if not isinstance(prompt, str) or prompt.count("{prompt}") != 1:
        return f"its prompt {policy.prompt!r} must have {{prompt}} in it once"
    preference = policy.preference
    if preference is not None and (
        len(preference) != num_objectives or min(preference) < 0 or not _sum_to_one(preference)
    ):
        return f"its preference {preference} is not {num_objectives} shares that sum to 1"
    return ""


def _sum_to_one(weights: Sequence[float]) -> bool:
    return math.isclose(math.fsum(weights), 1.0, abs_tol=SUM_TOLERANCE)


def preferences_of(family: Sequence[Policy]) -> np.ndarray | None:
    """The preferences `[num_policies, num_objectives]`, or None where a policy has none."""
    if any(policy.preference is None for policy in family):
        return None
    return np.array([policy.preference for policy in family])
