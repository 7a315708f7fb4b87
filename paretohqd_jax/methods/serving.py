"""The models of a finished run, by preference."""

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

from paretohqd_jax.config import default_config, objective_names, parse_preferences
from paretohqd_jax.errors import InputError
from paretohqd_jax.methods.alignment import adapter_names
from paretohqd_jax.methods.base import BaseModel
from paretohqd_jax.methods.paretohqd import STEPS
from paretohqd_jax.methods.steps import checkpoint_meta
from paretohqd_jax.models.lora import LoraConfig, combine_adapters
from paretohqd_jax.pareto.neighbours import (
    format_preference,
    mixture_weights,
    nearest_preference,
)
from paretohqd_jax.training.checkpoints import load_adapters

logger = logging.getLogger(__name__)
ROUNDING = 0.005  # of a weight as people write it: 0.33 for a third


def read_run_config(workdir: Path) -> ConfigDict:
    """The options of a run; those that came later than the run have their defaults.

    Raises:
      InputError: `workdir` holds no options of a run, or those of a method without preferences.
    """
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text())
        method = values["method"]
        config = default_config()
        if method == config.method:
            config.update(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error):.120}); is {workdir} a run directory?"
        ) from error
    if method != config.method:
        raise InputError(f"{workdir}: is a run of {method!r}, which has no model per preference")
    return config


def model_for(
    workdir: Path, config: ConfigDict, preference: str, interpolate: bool, source: str
) -> tuple[BaseModel, dict[str, Any]]:
    """The base model of a run and the adapter that serves a preference; says which one it is.

    Args:
      workdir: of the run, whose stage 2 is done.
      config: what `read_run_config` gives.
      preference: such as "0.8,0.2".
      interpolate: one that was not trained has the exact mixture of its neighbours' updates
        (`mixture_weights`), not the adapter of the nearest.
      source: where the base model lies now, or "" if that has not changed.

    Returns:
      The base model, its `lora` that of the adapter, and the adapter, no leading axis.

    Raises:
      InputError: the preference does not fit the objectives or cannot be interpolated, stage 2 is
        not done, or the base model is not there or another one.
    """
    objectives = objective_names(config.rewards.models)
    wanted = _parse_preference(preference, objectives)
    trained = parse_preferences(config.preferences, len(objectives))
    weights = _weights(trained, wanted, interpolate)
    _check_finished(workdir)
    base = BaseModel(
        config.model.source, config.model.dtype, "none", config.data.prompt_format,
        LoraConfig(**config.lora), date=config.data.date,
    )  # fmt: skip
    adapters = load_adapters(workdir / "stage2", checkpoint_meta(base, adapter_names(trained)))
    chosen = np.flatnonzero(weights)
    few = jax.tree.map(lambda leaf: leaf[chosen], adapters)
    adapter, lora = combine_adapters(few, weights[chosen].tolist(), base.lora)
    base = dataclasses.replace(base, source=source or base.source, lora=lora)
    _check_base(base, adapter)
    parts = [f"{weights[i]:.3g} of {format_preference(trained[i])}" for i in chosen]
    served_by = " + ".join(parts).removeprefix("1 of ")
    if np.abs(weights @ trained - wanted).max() >= ROUNDING:
        served_by = f"not trained, served by the nearest, {served_by}"
    asked = format_preference(wanted)
    logger.info("preference %s (%s): %s", asked, ", ".join(objectives), served_by)
    return base, adapter


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


def _weights(trained: np.ndarray, wanted: np.ndarray, interpolate: bool) -> np.ndarray:
    """How much of the update of each trained preference serves the one that is wanted."""
    nearest = nearest_preference(trained, wanted)
    if interpolate and np.abs(trained[nearest] - wanted).max() >= ROUNDING:
        return mixture_weights(trained, wanted)
    return np.eye(len(trained))[nearest]


def _parse_preference(text: str, objectives: Sequence[str]) -> np.ndarray:
    if text.count(",") != len(objectives) - 1 or ";" in text:
        raise InputError(
            f"--preference {text}: give one weight for each of {', '.join(objectives)}, in this "
            f"order, such as {','.join(['1'] + ['0'] * (len(objectives) - 1))}"
        )
    return parse_preferences(text, len(objectives))[0]


def _check_finished(workdir: Path) -> None:
    """Raises InputError unless stage 2 is done; warns where another run has begun since."""
    needed = STEPS[: STEPS.index("stage2") + 1]
    try:
        done = dict(json.loads((workdir / "manifest.json").read_text()))
    except (OSError, TypeError, ValueError):
        done = {}
    missing = [step for step in needed if step not in done]
    if missing:
        raise InputError(
            f"{workdir}: step {missing[0]} of the run is not done, and its models are those of "
            f"stage2; the command that began it goes on there: python -m paretohqd_jax.main "
            f"--config=... --workdir={workdir}"
        )
    if any((workdir / "partial" / step).exists() for step in needed):
        logger.warning("%s: a run there is not finished; these are the models before it", workdir)
