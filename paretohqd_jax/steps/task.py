"""A run as its steps see it: its options, its directory, its base model; nothing that is computed.

The steps in this room are what methods are made of. Each is a function of the task and of what
earlier steps left, and returns what it leaves itself. It owns its plumbing: the options it reads,
what its result depends on besides, its files, its devices. The work of a step is a function of its
own: the first two arguments are the path of its output and a scratch directory for shards, then
come the outputs it reads and its options. Work that uses the devices of all hosts is done in every
process and writes files in the first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config import check_config, objective_names, parse_preferences, split_model
from paretohqd_jax.data.sources import check_source
from paretohqd_jax.evaluation.truth import find_truth
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pipeline import Run, source_digest
from paretohqd_jax.rewards.identity import function_identity, reading_of
from paretohqd_jax.rewards.registry import Entry
from paretohqd_jax.rewards.scoring import check_scorer, find_scorer
from paretohqd_jax.rewards.store import check_store
from paretohqd_jax.sampling.external import check_engine
from paretohqd_jax.steps.base_model import BaseModel, check_base_model
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.training.mesh import check_sizes, make_mesh


@dataclasses.dataclass(frozen=True)
class Task:
    """What the steps of a run share.

    Attributes:
      config: its options.
      run: its directory.
      base: the model that all adapters of the run belong to.
      title: what the report calls the method.
    """

    config: ConfigDict
    run: Run
    base: BaseModel
    title: str

    @property
    def objectives(self) -> list[str]:
        return objective_names(self.config.rewards.models)

    @property
    def preferences(self) -> np.ndarray:
        """`config.preferences`, float64 `[num_preferences, num_objectives]`."""
        return parse_preferences(self.config.preferences, len(self.objectives))

    @property
    def store(self) -> Path:
        return score_store(self.config, self.run)

    @property
    def network(self) -> dict[str, Any]:
        """What a model's weights and answers depend on besides the options of a step."""
        return prompt_options(self.base) | {
            "model": source_digest(self.base.source),
            "dtype": self.base.dtype,
            "lora": dict(self.config.lora),
        }


def prompt_options(base: BaseModel) -> dict[str, str]:
    """What the text around prompts depends on: the day, too, where a chat template writes it."""
    options = {"tokenizer": base.source, "prompt_format": base.prompt_format}
    return options | ({"date": base.date} if base.chat.is_dated else {})


def open_task(config: ConfigDict, run: Run, title: str) -> Task:
    """The task of a run that aligns a language model."""
    return Task(config, run, base_model(config), title)


def base_model(config: ConfigDict) -> BaseModel:
    """The model of `config.model`, with adapters of `config.lora`, on the mesh of `config.mesh`."""
    return BaseModel(
        config.model.source, config.model.dtype, config.model.remat,
        config.data.prompt_format, LoraConfig(**config.lora), config.model.attention,
        make_mesh(**config.mesh), date=config.data.date,
    )  # fmt: skip


def check_alignment(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    check_config(config)
    base = base_model(config)
    for model in scoring_models(config):
        check_scorer(split_model(model)[1], config.rewards.backend, base)
    check_source(config.data.source)
    check_cache(config)
    if config.generate.engine == "external":
        check_engine(config.model.source, config.lora.rank, config.generate.engine_command)
    if config.evaluate.truth:
        find_truth(config.evaluate.truth, len(config.rewards.models))
    check_base_model(base)
    base.chat  # a chat template that will not do is an error before any work  # noqa: B018
    rows = {"batch": config.train.batch_size // config.train.num_microbatches}
    words = {"batch": "config.train.batch_size over config.train.num_microbatches"}
    check_sizes(base.mesh, rows, words)


def check_cache(config: ConfigDict) -> None:
    """Raises InputError unless scores can be kept in `config.rewards.cache`, if it is given."""
    if config.rewards.cache:
        check_store(Path(os.path.expanduser(config.rewards.cache)))


def scoring_models(config: ConfigDict) -> list[str]:
    """The reward models of the objectives, then the scorers that only gates ask for."""
    return [*config.rewards.models, *run_gates(config).scorers]


def reward_options(config: ConfigDict) -> dict[str, Any]:
    """What scores, and how it runs."""
    return {
        "models": scoring_models(config),
        "backend": config.rewards.backend,
        "dtype": config.rewards.dtype,
    }


def score_store(config: ConfigDict, run: Run) -> Path:
    """The folder where a run keeps scores: its own, unless it shares one."""
    shared = config.rewards.cache
    return Path(os.path.expanduser(shared)) if shared else run.workdir / "score_store"


def sampling_options(options: ConfigDict) -> dict[str, float]:
    """The part of `config.generate` or `config.evaluate` that goes to the sampler."""
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "num_beams")
    return {name: options[name] for name in names}


def longest_response(config: ConfigDict) -> int:
    """The tokens of the longest response that a model of the run may give."""
    groups = (config.generate, config.evaluate)
    return max(group.max_new_tokens for group in groups if "max_new_tokens" in group)


def checkpoints(models: Sequence[str], base: BaseModel | None = None) -> dict[str, Any]:
    """What identifies the scorers of `models`: how they read and their weights, or their program.

    `base` is the model of the run.
    """
    identities: dict[str, Any] = {}
    for model in models:
        name = split_model(model)[1]
        found = find_scorer(name, base)
        if isinstance(found, Entry):
            digests = [source_digest(place) for place in (found.checkpoint, found.adapter)]
            identities[model] = [reading_of(found), *digests]
        elif found is not None:
            identities[model] = function_identity(name, found)
    return {"checkpoints": identities}
