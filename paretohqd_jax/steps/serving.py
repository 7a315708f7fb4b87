"""The models of a finished run, by preference or by label, for whoever hands them on."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config import parse_preferences
from paretohqd_jax.errors import InputError
from paretohqd_jax.manifest import is_current, read_manifest
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.policies import (
    FILE,
    Policies,
    Policy,
    read_policies,
)
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.choosing import describe, labelled, policy_for
from paretohqd_jax.steps.stacks import adapters_of, answerers_of

logger = logging.getLogger(__name__)


def read_run_config(workdir: Path) -> ConfigDict:
    """The options that a run that aligns a language model was last begun with.

    Raises:
      InputError: `workdir` holds none.
    """
    path = workdir / "config.json"
    read_manifest(workdir)
    try:
        config = ConfigDict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error):.120}); is {workdir} a run directory?"
        ) from error
    if "evaluate" not in config or "data" not in config:
        raise InputError(f"{workdir}: is no run that aligns a language model")
    return config


def served_model(
    workdir: Path, preference: str, label: str, interpolate: bool, source: str
) -> tuple[Policy, BaseModel, dict[str, Any], Answerer]:
    """The policy that serves a preference, the base model and what answers; says which it is.

    Args:
      workdir: of the run, whose models are trained.
      preference: such as "0.8,0.2", or "" where `label` names a policy.
      label: of a policy, as `choosing.labelled`; "" where a preference is given.
      interpolate: as of `choosing.policy_for`.
      source: where the base model lies now, or "" if that has not changed.

    Returns:
      The policy; the base model, its `lora` that of the adapters; a stack of adapters; and which
      of them answer how.

    Raises:
      InputError: the preference does not fit the objectives or cannot be interpolated, there is no
        such policy, the run is not that far, or the base model is not there or another one.
    """
    run, policy, told = _chosen(workdir, preference, label, interpolate)
    base = base_of(run)
    stack, lora, [answerer] = answerers_of([policy], run.stacks, workdir, base)
    base = dataclasses.replace(base, source=source or base.source, lora=lora)
    _check_base(base, jax.tree.map(lambda leaf: leaf[0], stack))
    logger.info("%s", told)
    return policy, base, stack, answerer


def served_adapter(
    workdir: Path, preference: str, label: str, interpolate: bool, source: str
) -> tuple[Policy, BaseModel, dict[str, Any]]:
    """The policy that serves a preference, the base model and the policy's one adapter.

    Arguments and errors are those of `served_model`, and InputError for a policy that mixes logits.
    """
    run, policy, told = _chosen(workdir, preference, label, interpolate)
    base = base_of(run)
    [(adapter, lora)] = adapters_of([policy], run.stacks, workdir, base)
    base = dataclasses.replace(base, source=source or base.source, lora=lora)
    _check_base(base, adapter)
    logger.info("%s", told)
    return policy, base, adapter


def _chosen(
    workdir: Path, preference: str, label: str, interpolate: bool
) -> tuple[Policies, Policy, str]:
    """The policies of a run, the one that serves, and what is to be told of it."""
    manifest = read_manifest(workdir)
    run = read_policies(workdir / FILE)
    wanted = None
    if label:
        policy = labelled(run, label)
    else:
        wanted = _parse_preference(preference, run.objectives)
        policy = policy_for(run.served, wanted, interpolate, run.targets)
    if not is_current(workdir, manifest, "policies"):
        logger.warning("%s: a run there is not finished; these are the models before it", workdir)
    return run, policy, f"{describe(policy, wanted)} ({', '.join(run.objectives)})"


def base_of(run: Policies) -> BaseModel:
    """The base model that the policies of a run belong to.

    Raises InputError where what the file says of it makes no sense.
    """
    try:
        lora = LoraConfig(**run.base["lora"])
    except (InputError, TypeError) as error:
        raise InputError(
            f"{FILE}: its base model is damaged ({error}); delete it and run again"
        ) from error
    told = (run.base[name] for name in ("source", "dtype"))
    return BaseModel(*told, "none", run.base["prompt_format"], lora, date=run.base["date"])


def _check_base(base: BaseModel, adapter: dict[str, Any]) -> None:
    """Raises InputError unless the base model is there and of the adapter's shape."""
    try:
        config = base.config
    except InputError as error:
        raise InputError(f"{error}; --model says where the run's base model lies now") from error
    for target, factors in adapter["layers"].items():
        (num_layers, size_in, _), size_out = factors["a"].shape, factors["b"].shape[-1]
        fits = (size_in, size_out) == config.projection_shapes()[target]
        if num_layers != config.num_layers or not fits:
            raise InputError(f"{base.source}: is not the base model that the adapters belong to")


def _parse_preference(text: str, objectives: Sequence[str]) -> np.ndarray:
    if text.count(",") != len(objectives) - 1 or ";" in text:
        raise InputError(
            f"--preference {text}: give one weight for each of {', '.join(objectives)}, in this "
            f"order, such as {','.join(['1'] + ['0'] * (len(objectives) - 1))}"
        )
    return parse_preferences(text, len(objectives))[0]
