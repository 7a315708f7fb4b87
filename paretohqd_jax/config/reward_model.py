"""The options of a run that trains a reward model."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    OURS,
    SWITCH,
    TEXT,
    Option,
    Valid,
    at_least,
    changed,
    one_of,
)
from paretohqd_jax.data.negatives import parse_negatives
from paretohqd_jax.data.special_tokens import CUTS
from paretohqd_jax.errors import InputError

SHARE = Valid("in (0, 1)", lambda value: 0 < value < 1)


def _are_readings(texts: Sequence[str]) -> bool:
    return 1 <= len(texts) <= 2 and any("{response}" in text for text in texts)


def _is_part(part: Sequence[float]) -> bool:
    return len(part) == 2 and 0 <= part[0] < part[1] <= 1


OPTIONS = {
    "seed": shared.SEED,
    # Pairs (prompt, chosen, rejected) or scored rows (prompt, response, and a column of numbers).
    "data": {
        **shared.READING,
        "score": Option(
            "", TEXT, OURS, 'The column of scores, or of pairs\' labels; "": chosen is better.'
        ),
        "log_odds": Option(
            False, SWITCH, OURS, "The scores are probabilities: learn their log-odds."
        ),
        "margin": Option(
            0.5, ABOVE_ZERO, OURS, "Responses whose scores differ by less make no pair."
        ),
        "group_size": Option(
            4, at_least(2), OURS, "Scored responses to a prompt, compared with each other."
        ),
        "groups_per_prompt": Option(1, at_least(1), OURS, "Such groups of scored responses."),
        "validation_share": Option(
            0.0,
            Valid("in [0, 1)", lambda value: 0 <= value < 1),
            OURS,
            "Of the prompts, held out by a hash of their text to choose options by.",
        ),
        "test_share": Option(
            0.1, SHARE, OURS, "Of the prompts, held out likewise to report on, by no choice seen."
        ),
        "train_part": Option(
            (0.0, 1.0),
            Valid("two numbers in [0, 1], the first smaller", _is_part),
            OURS,
            "Of the other prompts, by the same hash, those to learn from: models of (0.0,0.5) and "
            "(0.5,1.0) share none.",
        ),
        "test_size": Option(16, at_least(2), OURS, "Scored responses to each held-out prompt."),
        "drop_shared": Option(
            False,
            SWITCH,
            OURS,
            "Leave out scored rows whose response three or more prompts have: it answers none.",
        ),
        "negatives": Option(
            (),
            Valid(
                "kinds and shares such as 'shuffled=0.5'",
                lambda texts: parse_negatives(texts) is not None,
            ),
            OURS,
            "Corrupted copies to learn from: by kind the share of training groups that get one.",
        ),
    },
    "model": {
        **shared.MODEL,
        "num_layers": Option(0, at_least(0), OURS, "The first so many layers are used; 0: all."),
    },
    # How a prompt and its response are read.
    "text": {
        "texts": Option(
            ("{dialogue}\n\nAssistant: {response}",),
            Valid("one or two with {response}", _are_readings),
            OURS,
            "One text, or a pair of which the longer one is cut; {dialogue} stands for the prompt "
            "as HH-RLHF writes it.",
        ),
        "cut": Option(
            "left",
            one_of(*CUTS),
            OURS,
            'Where longer texts lose tokens; "middle" keeps beginning and end alike.',
        ),
        "max_tokens": Option(512, at_least(2), OURS, "Longer texts are cut."),
    },
    "mesh": shared.MESH,
    "lora": {
        **shared.LORA,
        "rank": changed(shared.LORA["rank"], 8),
        "alpha": changed(shared.LORA["alpha"], 16.0),
    },
    "train": {
        "loss": Option(
            "bradley_terry",
            one_of("bradley_terry", "regression"),
            OURS,
            "Regression is on standardised scores.",
        ),
        "num_steps": Option(200, at_least(1), OURS, "Of training."),
        **shared.TRAIN,
        "batch_size": Option(8, at_least(1), OURS, "Groups, or pairs, per step."),
        "learning_rate": changed(shared.TRAIN["learning_rate"], 1e-3),
        "warmup_steps": changed(shared.TRAIN["warmup_steps"], 5),
    },
    # Whether a response answers its prompt, learned apart from which response belongs to which.
    "match": {
        "num_steps": Option(0, at_least(0), OURS, "Of learning it; 0: it is no part of rewards."),
        "rank": Option(64, at_least(1), OURS, "Of the projection in which words are compared."),
        "penalty": Option(
            10.0,
            ABOVE_ZERO,
            OURS,
            "Times the probability of a mismatch it is taken from the reward.",
        ),
        "batch_size": Option(
            16, at_least(2), OURS, "Prompts per step, each with a response, compared with all."
        ),
        "learning_rate": Option(3e-3, ABOVE_ZERO, OURS, "Of Adam, with a cosine decay."),
    },
    # For the readers of the model's card.
    "card": {
        "data": Option("", TEXT, OURS, "What the data are, for readers of the model's card."),
        "licence": Option("", TEXT, OURS, "Of the reward model, on its card."),
        "note": Option("", TEXT, OURS, "Of the reward model, on its card."),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_sources(config, "data.source", "model.source")
    checks.check_train(config, config.train.num_steps)
    held_out = config.data.validation_share + config.data.test_share
    if held_out >= 1:
        raise InputError(
            f"config.data.validation_share and test_share add up to {held_out:g}: nothing is left "
            "to train on; lower them"
        )
    if config.train.loss == "regression" and not config.data.score:
        raise InputError("config.train.loss='regression' needs scores: set config.data.score")
    if config.train.loss == "regression" and config.data.negatives:
        raise InputError(
            "config.data.negatives: a copy is worse than its response, by no known number; use "
            "config.train.loss='bradley_terry', or no negatives"
        )
