"""What all methods that align a model share: their options, and the steps at both ends of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config import check_config, objective_names, split_model
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.data.sources import check_source
from paretohqd_jax.methods import steps
from paretohqd_jax.methods.base import BaseModel, check_base_model
from paretohqd_jax.methods.evaluation import evaluate_models
from paretohqd_jax.methods.scoring import score_data, score_reference, score_responses
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pipeline import Output, Run, source_digest
from paretohqd_jax.rewards.registry import find_entry
from paretohqd_jax.rewards.scoring import check_scorer
from paretohqd_jax.sampling.external import check_engine
from paretohqd_jax.training.mesh import check_sizes, make_mesh


def check_alignment(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    check_config(config)
    for model in config.rewards.models:
        check_scorer(split_model(model)[1], config.rewards.backend)
    check_source(config.data.source)
    if config.generate.engine == "external":
        check_engine(config.model.source, config.lora.rank)
    base = base_model(config)
    check_base_model(base)
    base.chat  # a chat template that will not do is an error before any work  # noqa: B018
    rows = {"batch": config.train.batch_size // config.train.num_microbatches}
    words = {"batch": "config.train.batch_size over config.train.num_microbatches"}
    check_sizes(base.mesh, rows, words)


def base_model(config: ConfigDict) -> BaseModel:
    """The model that all adapters of the run belong to."""
    return BaseModel(
        config.model.source, config.model.dtype, config.model.remat,
        config.data.prompt_format, LoraConfig(**config.lora), config.model.attention,
        make_mesh(**config.mesh), date=config.data.date,
    )  # fmt: skip


def score_rows(config: ConfigDict, run: Run, base: BaseModel) -> Output:
    """Scores every response, and holds out the test prompts."""
    return run.step(
        "score", "scores.parquet",
        partial(
            score_data, base=base, batch_size=config.rewards.batch_size,
            max_new_tokens=max(config.generate.max_new_tokens, config.evaluate.max_new_tokens),
        ),
        data=data_options(config),
        num_test_prompts=config.data.num_test_prompts, min_tokens=config.data.min_tokens,
        max_tokens=config.data.max_tokens, **reward_options(config),
        also=prompt_options(base) | {"data_digest": source_digest(config.data.source)}
        | checkpoints(config.rewards.models),
        all_processes=True,
    )  # fmt: skip


def judge(
    config: ConfigDict, run: Run, base: BaseModel, name: str, path: str, responses: Output
) -> Output:
    """Scores generated responses by the reward models."""
    return run.step(
        name, path,
        partial(score_responses, base=base, batch_size=config.rewards.batch_size), responses,
        **reward_options(config), also=checkpoints(config.rewards.models), all_processes=True,
    )  # fmt: skip


def measure(
    config: ConfigDict,
    run: Run,
    base: BaseModel,
    scored: Output,
    stages: dict[str, Output],
    preferences: np.ndarray,
) -> tuple[Output, Output, Output]:
    """All models of each stage and the base model answer the held-out prompts, and are measured.

    `preferences` are `[num_preferences, num_objectives]`, one per model of a stage. Returns the
    scored answers, training rows whose rewards are in the same units, and the measured points.
    """
    answered = run.step(
        "respond", "evaluation/responses.parquet",
        partial(steps.respond_to_test_prompts, base=base, batch_size=config.evaluate.batch_size),
        scored, *stages.values(),
        adapter_names=adapter_names(preferences), sampling=sampling_options(config.evaluate),
        seed=config.seed, engine=config.generate.engine, also=network_options(config, base),
        all_processes=True,
    )  # fmt: skip
    judged = judge(config, run, base, "judge", "evaluation/scores.parquet", answered)
    reference = reference_rows(config, run, base, scored)
    points = run.step(
        "evaluate", "evaluation/points.json", partial(evaluate_models, stages=list(stages)),
        reference, judged, **goal_options(config, preferences),
    )  # fmt: skip
    return judged, reference, points


def reference_rows(config: ConfigDict, run: Run, base: BaseModel, scored: Output) -> Output:
    """Training rows whose rewards are in the units of the models' answers.

    They are the scored rows themselves, or where these brought scores along, a sample of them that
    the reward models have scored.
    """
    if not parse_scores(config.data.scores):
        return scored
    return run.step(
        "reference", "reference.parquet",
        partial(score_reference, base=base, batch_size=config.rewards.batch_size), scored,
        **reward_options(config), also=checkpoints(config.rewards.models), all_processes=True,
    )  # fmt: skip


def export(
    config: ConfigDict, run: Run, base: BaseModel, trained: Output, preferences: np.ndarray
) -> Output:
    """Writes the adapters, one per row of `preferences [num_preferences, M]`, in PEFT's format."""
    return run.step(
        "export", "adapters", partial(steps.export_adapters, base=base), trained,
        adapter_names=adapter_names(preferences), also=network_options(config, base),
    )  # fmt: skip


def tuner(config: ConfigDict, run: Run, base: BaseModel) -> partial[None]:
    """`fine_tune_selected` with what no result depends on."""
    return partial(
        steps.fine_tune_selected, base=base, log_directory=run.workdir / "logs",
        checkpoint_every=config.train.checkpoint_every,
    )  # fmt: skip


def training_options(config: ConfigDict, preferences: np.ndarray) -> dict[str, Any]:
    """Options of `fine_tune_selected` that no stage changes."""
    names = (
        "batch_size",
        "num_microbatches",  # each draws its own dropout
        "learning_rate",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
    )
    options = {name: config.train[name] for name in names}
    return options | {"adapter_names": adapter_names(preferences)}


def network_options(config: ConfigDict, base: BaseModel) -> dict[str, Any]:
    """What a model's weights and answers depend on besides the options of the step."""
    return prompt_options(base) | {
        "model": source_digest(base.source),
        "dtype": base.dtype,
        "lora": dict(config.lora),
    }


def prompt_options(base: BaseModel) -> dict[str, str]:
    """What the text around prompts depends on: the day, too, where a chat template writes it."""
    options = {"tokenizer": base.source, "prompt_format": base.prompt_format}
    return options | ({"date": base.date} if base.chat.is_dated else {})


def goal_options(config: ConfigDict, preferences: np.ndarray) -> dict[str, Any]:
    """The names of the objectives, and the preferences `[num_preferences, num_objectives]`."""
    return {
        "objectives": objective_names(config.rewards.models),
        "preferences": preferences.tolist(),
    }


def reward_options(config: ConfigDict) -> dict[str, Any]:
    """The reward models, and how they run."""
    return {
        "models": list(config.rewards.models),
        "backend": config.rewards.backend,
        "dtype": config.rewards.dtype,
    }


def checkpoints(models: Sequence[str]) -> dict[str, Any]:
    """What identifies the reward models among `models`: how they read, and their weights."""
    identities = {}
    for model in models:
        entry = find_entry(split_model(model)[1])
        if entry is not None:
            reading = dataclasses.asdict(entry)
            for name in ("checkpoint", "adapter", "published", "licence", "note"):
                del reading[name]  # words, and places that the digests stand for
            digests = [source_digest(place) for place in (entry.checkpoint, entry.adapter)]
            identities[model] = [reading, *digests]
    return {"checkpoints": identities}


def data_options(config: ConfigDict) -> dict[str, str]:
    """The part of `config.data` that says where the rows come from."""
    names = ("source", "format", "columns", "split", "revision", "scores")
    return {name: config.data[name] for name in names}


def sampling_options(options: ConfigDict) -> dict[str, float]:
    """The part of `config.generate` or `config.evaluate` that goes to the sampler."""
    return {name: options[name] for name in ("max_new_tokens", "temperature", "top_p", "top_k")}


def adapter_names(preferences: np.ndarray) -> list[str]:
    """A name for each of `preferences [num_preferences, M]`, safe in file names: `w0.50_0.50`."""
    names = ["w" + "_".join(f"{weight:.2f}" for weight in row) for row in preferences]
    if len(set(names)) < len(names):  # preferences closer than a hundredth
        names = [f"{name}_{index}" for index, name in enumerate(names)]
    return names


def facts_of(config: ConfigDict, method: str) -> dict[str, str]:
    """What a reader of the report should know of the run's options."""
    facts = {"method": method, "rewards": ", ".join(config.rewards.models)}
    for group in ("model", "data", "select", "lora", "train", "generate", "evaluate"):
        options = (f"{name} {value}" for name, value in config[group].items() if value != "")
        facts[group] = ", ".join(options)
    return facts | {"seed": str(config.seed)}
