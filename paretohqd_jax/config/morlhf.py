"""The options of MORLHF: policy gradients on answers of the models themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.engine import ENGINE
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    MODPO,
    OURS,
    RIC,
    SWITCH,
    Option,
    at_least,
    changed,
    one_of,
    require,
)

SAMPLING = shared.sampling(1.0, "of all models")
# What is trained is what is sampled: filters of tokens would make it another distribution.
GENERATE = {
    **ENGINE,
    "engine": dataclasses.replace(
        ENGINE["engine"],
        help='Who decodes in the evaluation: "external" is a serving engine such as vLLM; the run '
        "stops and tells you the command that starts it. What is learnt from is decoded here.",
    ),
    "max_new_tokens": SAMPLING["max_new_tokens"],
    "temperature": Option(
        1.0,
        ABOVE_ZERO,
        OURS,
        "Of the answers that are learnt from; log-probabilities are taken at it too.",
    ),
    "batch_size": changed(SAMPLING["batch_size"], 96),
}
# Of policy gradients, whatever the weights of the objectives are.
REINFORCEMENT = {
    "num_updates": Option(200, at_least(1), RIC, "Rounds of answering and learning."),
    "num_prompts": Option(64, at_least(1), RIC, "Of an update; every model answers the same."),
    "num_answers": Option(4, at_least(2), OURS, "G, of each model to each prompt: a group."),
    "max_prompt_tokens": Option(256, at_least(1), RIC, "Longer prompts are left out."),
    "advantage": Option(
        "grpo",
        one_of("grpo", "gdpo", "rloo"),
        OURS,
        'What an answer is worth beside its group: "grpo", its weighted reward in standard '
        'deviations; "gdpo", the weighted sum of its rewards, each in standard deviations; "rloo", '
        "its weighted reward less the mean of the others'.",
    ),
    "normalize": Option(
        True,
        SWITCH,
        OURS,
        "Rewards are in standard deviations of the training rows before they are weighted; "
        "otherwise as the reward models give them.",
    ),
    "num_epochs": Option(
        1, at_least(1), OURS, "How often an update goes over its answers; 4 times in RiC's code."
    ),
    "clip": Option(0.2, ABOVE_ZERO, MODPO, "How far a token's probability ratio may go from 1."),
    "kl": Option(0.05, at_least(0), OURS, "How much a model is held to the base model, per token."),
    "max_kl": Option(
        10.0, ABOVE_ZERO, OURS, "KL divergence from the base model per token, where training stops."
    ),
}
TRAIN = {
    **shared.TRAIN_ALONE,
    "batch_size": Option(64, at_least(1), OURS, "Answers per adapter and optimiser step."),
    "learning_rate": changed(shared.TRAIN["learning_rate"], 1e-5, RIC),
    "max_grad_norm": changed(shared.TRAIN["max_grad_norm"], 0.5, RIC),
    "checkpoint_every": Option(5, at_least(1), OURS, "Updates between two checkpoints."),
}
# With dropout the policy that is trained is not the one that answered.
LORA = {**shared.LORA, "dropout": changed(shared.LORA["dropout"], 0.0)}
OPTIONS: dict[str, Any] = {
    **shared.ALIGNMENT,
    "preferences": shared.PREFERENCES,
    "morlhf": REINFORCEMENT,
    "lora": LORA,
    "train": TRAIN,
    "generate": GENERATE,
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, num_steps(config))
    size = config.morlhf.num_prompts * config.morlhf.num_answers
    divisor = f"a divisor of morlhf.num_prompts * morlhf.num_answers = {size}"
    require(config, "train.batch_size", size % config.train.batch_size == 0, divisor)
    parse_preferences(config.preferences, len(config.rewards.models))


def num_steps(config: ConfigDict) -> int:
    """Optimiser steps of each adapter, in all updates."""
    num_answers = config.morlhf.num_prompts * config.morlhf.num_answers
    per_update = config.morlhf.num_epochs * num_answers // config.train.batch_size
    return config.morlhf.num_updates * per_update
