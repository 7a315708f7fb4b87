"""The options of a run: the paper's values as defaults, and one check of the whole.

A config file in `configs/` starts from `default_config()` and changes what differs. Sources of the
defaults: the ParetoHqD paper (arXiv 2504.16628), or RiC (arXiv 2402.10207), whose settings the
paper's experiments follow where it is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.data.chat import check_prompt_format
from paretohqd_jax.data.gates import parse_gates
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import check_preferences, preference_grid

CHOICES = {
    "data.format": ("plain", *PUBLIC_FORMATS),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "model.attention": ("xla", "cudnn", "splash"),
    "rewards.backend": ("jax", "torch"),
    "rewards.dtype": ("float32", "bfloat16"),
    "generate.engine": ("jax", "external"),
    "select.range_scope": ("data", "pareto", "quantile"),
    "text.cut": ("left", "right"),
    "train.loss": ("bradley_terry", "regression"),
}
AT_LEAST_ONE = (
    "data.num_test_prompts",
    "data.max_tokens",
    "data.groups_per_prompt",
    "text.max_tokens",
    "select.k",
    "lora.rank",
    "train.stage1_steps",
    "train.stage2_steps",
    "train.num_steps",
    "train.batch_size",
    "train.num_microbatches",
    "train.checkpoint_every",
    "generate.num_prompts",
    "generate.max_new_tokens",
    "generate.batch_size",
    "evaluate.max_new_tokens",
    "evaluate.batch_size",
    "rewards.batch_size",
    "mesh.fsdp",
    "mesh.tensor",
)
AT_LEAST_TWO = ("data.group_size", "data.test_size", "select.k")
NOT_NEGATIVE = (
    "seed",
    "data.min_tokens",
    "model.num_layers",
    "select.min_pool_size",
    "train.warmup_steps",
    "train.weight_decay",
    "generate.temperature",
    "generate.top_k",
    "evaluate.temperature",
    "evaluate.top_k",
)
OWN_COLUMNS = ("prompt", "response", "split", "source_row", "collapsed", "truncated")
POSITIVE = ("lora.alpha", "train.learning_rate", "train.max_grad_norm")


def default_config() -> ConfigDict:
    """Every option there is, with the paper's value where the paper states one; locked."""
    return ConfigDict(
        {
            "method": "paretohqd",
            "seed": 0,
            "data": {
                # "quickstart", a parquet, jsonl or csv file, "package.module:function", a directory
                # or hub name ("Anthropic/hh-rlhf/harmless-base") for the datasets library.
                "source": "",
                # "plain" (columns prompt, response or prompt, chosen, rejected), or a public set's
                # own fields: hh, summarize, safe_rlhf, beavertails, helpsteer, ultrafeedback, ric.
                "format": "plain",
                "columns": "",  # new names, ours first: "prompt=question,response=answer"
                "split": "train",  # of a directory or hub name
                "revision": "",  # of a hub name: a commit or tag; "" stands for the newest
                # Objectives whose rewards the rows bring along: "helpful=log_odds(win_rate)". The
                # reward models score what is generated.
                "scores": "",
                # "chat" (the tokenizer's template) or a text with {prompt} in it.
                "prompt_format": "chat",
                "num_test_prompts": 200,  # held out by prompt, for the evaluation
                "min_tokens": 8,  # rows outside these bounds are left out (RiC)
                "max_tokens": 512,
            },
            "model": {
                # A Hugging Face directory or hub name, a GGUF file, or package:NAME/FILE.
                "source": "",
                "dtype": "bfloat16",
                "remat": "full",  # what the backward pass computes again: none, dots, full
                "attention": "xla",  # in training: xla, cudnn (NVIDIA, bfloat16) or splash (TPU)
            },
            # Devices along each axis of the mesh; -1 stands for what the others leave.
            "mesh": {
                "data": -1,  # cuts the stack of adapters
                "fsdp": 1,  # cuts the rows of a batch and, with tensor, the base weights
                "tensor": 1,  # cuts heads, feed-forward and vocabulary
            },
            "rewards": {
                # The objectives: reward models and scorers by name, or "package.module:function";
                # larger is better. "COLUMN=NAME" says what the scores are called.
                "models": ("brief", "positivity"),
                "backend": "jax",  # "torch" reads any classifier of Hugging Face's
                "dtype": "float32",  # of the reward models' weights
                "batch_size": 64,  # responses that a reward model reads together
            },
            # A number of grid points, a named list, or "0.8,0.2;0.5,0.5".
            "preferences": "11",
            "select": {
                # "ray": pooled rows nearest to the preference's ray (paper); "weighted_sum": those
                # of the largest weighted sum. Of config.method="sft": "random", k rows, or "all".
                "rule": "ray",
                "k": 100,  # rows per preference; stage 2 takes half (paper)
                "min_pool_size": 0,  # N_p; 0 stands for k times the number of preferences
                "range_scope": "data",
                "normalize": True,
                # "relevance>=0.3": rows that fail one of these are not trained on.
                "gates": (),
            },
            "lora": {
                "rank": 64,  # rank, alpha, dropout: paper
                "alpha": 128.0,
                "dropout": 0.05,
                "targets": ("q_proj", "v_proj"),
            },
            "train": {
                "stage1_steps": 200,  # paper
                "stage2_steps": 200,  # paper
                "batch_size": 8,  # rows per preference (paper)
                "num_microbatches": 1,  # parts a batch is computed in; more take less memory
                "learning_rate": 1.41e-4,  # RiC, with the linear schedule and weight decay
                "warmup_steps": 0,
                "weight_decay": 0.01,
                "max_grad_norm": 1.0,
                "checkpoint_every": 50,
            },
            "generate": {
                # Who decodes here and for the evaluation: "jax", or "external", a serving engine
                # (vLLM) that you start yourself; the run stops and tells you the command.
                "engine": "jax",
                "num_prompts": 10_000,  # per representative (paper)
                "max_new_tokens": 128,  # sampling: RiC's online stage
                "temperature": 0.7,
                "top_p": 0.9,
                "top_k": 0,
                "batch_size": 96,  # responses decoded together, of all representatives
            },
            "evaluate": {
                "max_new_tokens": 128,  # sampling: RiC's evaluation
                "temperature": 1.0,
                "top_p": 0.9,
                "top_k": 0,
                "batch_size": 96,
            },
        }
    ).lock()


def check_config(config: ConfigDict) -> None:
    """Checks each option alone and against the others, before any work starts.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    check_options(config, default_config())
    for name in ("generate.top_p", "evaluate.top_p"):
        require(config, name, 1e-6 <= _option(config, name) <= 1, "1e-6 to 1")
    check_prompt_format(config.data.prompt_format)
    models = config.rewards.models
    valid_models = (
        all(isinstance(model, str) for model in models)
        and len(models) >= 2
        and len(set(objective_names(models))) == len(models)
    )
    require(config, "rewards.models", valid_models, "two or more of different names")
    objectives = objective_names(models)
    given = set(parse_scores(config.data.scores))
    require(config, "data.scores", given <= set(objectives), f"some of {', '.join(objectives)}")
    parse_gates(config.select.gates)
    pool = config.select.min_pool_size
    require(config, "select.min_pool_size", pool == 0 or pool >= config.select.k, "0 or >= k")
    shortest = min(config.train.stage1_steps, config.train.stage2_steps)
    require(config, "train.warmup_steps", config.train.warmup_steps < shortest, f"< {shortest}")


def check_options(config: ConfigDict, known: ConfigDict) -> None:
    """Checks the options that methods share; `known` are the defaults of the method at hand.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    for name in known:
        if name not in config:
            raise InputError(
                f"config.{name} is missing; let get_config() start from the method's defaults"
            )
    for name in ("data.source", "model.source"):
        if not _option(config, name):
            raise InputError(f"config.{name} is not set; see the comments in the config file")

    def require_all(names: Iterable[str], holds: Callable[[Any], bool], valid: str) -> None:
        for name in names:
            if _has(known, name):
                require(config, name, holds(_option(config, name)), valid)

    for name, valid in CHOICES.items():
        require_all([name], lambda value, valid=valid: value in valid, f"one of {', '.join(valid)}")
    require_all(AT_LEAST_ONE, lambda value: value >= 1, "at least 1")
    require_all(AT_LEAST_TWO, lambda value: value >= 2, "at least 2")
    require_all(NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "0 or more")
    require_all(POSITIVE, lambda value: 0 < value < math.inf, "above 0")
    data = config.mesh.data
    require(config, "mesh.data", data == -1 or data >= 1, "-1 (the rest), or 1 or more")
    require(config, "lora.dropout", 0 <= config.lora.dropout < 1, "in [0, 1)")
    divides = config.train.batch_size % config.train.num_microbatches == 0
    divisor = f"a divisor of config.train.batch_size={config.train.batch_size}"
    require(config, "train.num_microbatches", divides, divisor)


def split_model(model: str) -> tuple[str, str]:
    """The column of an entry of `config.rewards.models` and its scorer.

    They are written "COLUMN=SCORER". A scorer alone names its column too; of NAME@CHECKPOINT the
    name does, and of a directory its last part.
    """
    column, equals, scorer = model.partition("=")
    if equals:
        return column, scorer
    named = model.partition("@")[0]
    return (named if ":" in named else named.rstrip("/").rpartition("/")[2]), model


def objective_names(models: Sequence[str]) -> list[str]:
    """The columns of the entries of `config.rewards.models`.

    Raises InputError for one that is nothing, or the name of another column of the rows.
    """
    names = [split_model(model)[0] for model in models]
    for model, name in zip(models, names, strict=True):
        if name in ("", *OWN_COLUMNS):
            raise InputError(
                f"reward model {model!r}: its column cannot be called {name!r}; "
                "choose a name and write it as COLUMN=NAME"
            )
    return names


def parse_preferences(text: str, num_objectives: int) -> np.ndarray:
    """Preferences on the simplex, float64 `[num_preferences, num_objectives]`.

    Args:
      text: a number of grid points such as "11", the name of a list, or the preferences
        themselves, "0.8,0.2;0.5,0.5".
      num_objectives: M, the length of each preference.

    Raises:
      InputError: the text is none of these, or a preference is off the simplex.
    """
    if "," not in text:
        return np.asarray(preference_grid(int(text) if text.isdecimal() else text, num_objectives))
    try:
        rows = [[float(weight) for weight in row.split(",")] for row in text.split(";")]
    except ValueError as error:
        raise InputError(
            f"preferences {text!r}: {error}; write them like '0.8,0.2;0.5,0.5'"
        ) from error
    if any(len(row) != num_objectives for row in rows):
        raise InputError(f"preferences {text!r}: give {num_objectives} weights, one per objective")
    return np.asarray(check_preferences(np.array(rows), num_objectives))


def _option(config: ConfigDict, name: str) -> object:
    for part in name.split("."):
        config = config[part]
    return config


def _has(config: ConfigDict, name: str) -> bool:
    group, _, rest = name.partition(".")
    return group in config and (not rest or rest in config[group])


def require(config: ConfigDict, name: str, holds: bool, valid: str) -> None:
    """Raises InputError naming an option and its value unless `holds`; `valid` is what would be."""
    if not holds:
        raise InputError(f"config.{name}={_option(config, name)!r} is not valid; use {valid}")
