"""A reward model from preference data: LoRA and a scalar head on the first layers of a base.

Learns from groups of responses to one prompt, by Bradley and Terry's likelihood of all their pairs
or by regression on their scores; preference pairs are groups of two. Measured on prompts held out.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.config import check_config
from paretohqd_jax.data.sources import check_source
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Run
from paretohqd_jax.rewards.registry import CARD
from paretohqd_jax.rewards.reward_model import separator_of
from paretohqd_jax.steps.base_model import check_base_model
from paretohqd_jax.steps.reward_model import (
    base_model,
    export,
    group,
    match,
    measure,
    open_reward_task,
    train,
)

STEPS = ("group", "match", "train", "measure", "export")


def align(config: ConfigDict, run: Run) -> Path:
    """Trains and measures, and returns the card of the reward model, in its directory."""
    task = open_reward_task(config, run)
    groups = group(task)
    matched = match(task, groups)
    trained = train(task, groups)
    measured = measure(task, groups, trained, matched)
    return export(task, trained, matched, measured).path / CARD


def check(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    check_config(config)
    check_source(config.data.source)
    base = base_model(config)
    check_base_model(base)
    if config.match.num_steps:
        separator_of(base.tokenizer, config.text.texts, config.text.cut)
    context = base.config.max_position_embeddings
    if config.text.max_tokens > context:
        raise InputError(
            f"config.text.max_tokens={config.text.max_tokens} is more than the model's context of "
            f"{context}; use {context} or less"
        )
