"""The options that methods share which learn from preference pairs, and what must hold of them."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    MODPO,
    OURS,
    SIPO,
    Option,
    Valid,
    at_least,
    changed,
    one_of,
    require,
)

PAIRS = {
    "labels": Option(
        "rewards",
        one_of("rewards", "data"),
        OURS,
        'Who says which response is better: "rewards", of any two responses to a prompt the larger '
        'one on each objective; "data", a column of labels per objective that the source\'s pairs '
        "bring along, under the objective's name (config.data.columns gives names).",
    ),
    "margin": Option(
        0.0,
        at_least(0),
        OURS,
        "Of labels by rewards: rewards that differ by so many of their standard deviations, or "
        "less, tie, and the label is 0.",
    ),
    "per_prompt": Option(8, at_least(1), OURS, "Random pairs of a prompt, at most."),
    "conflict": Option(
        -1.0,
        Valid("-1 (as it comes), or a share in [0, 1]", lambda x: x == -1 or 0 <= x <= 1),
        SIPO,
        "The share of training pairs whose objectives disagree; others are left out.",
    ),
}
DPO = {
    "beta": Option(0.1, ABOVE_ZERO, MODPO, "How much a model is held to the base model."),
    "loss": Option(
        "sigmoid",
        one_of("sigmoid", "hinge", "ipo"),
        MODPO,
        "Of the margin between the two responses.",
    ),
    "label_smoothing": Option(
        0.0,
        Valid("in [0, 0.5)", lambda value: 0 <= value < 0.5),
        MODPO,
        "Of sigmoid: the share of labels that are taken to be wrong.",
    ),
}
OPTIONS = {
    **shared.ALIGNMENT,
    "pairs": PAIRS,
    "dpo": DPO,
    "lora": {
        **shared.LORA,
        "dropout": changed(shared.LORA["dropout"], 0.0, MODPO),
    },
    "train": {
        "num_steps": Option(400, at_least(1), OURS, "Of each adapter."),
        **shared.TRAIN,
        "batch_size": Option(8, at_least(1), OURS, "Pairs per adapter and step."),
        "learning_rate": changed(shared.TRAIN["learning_rate"], 5e-5),
    },
}

# Of those that leave a model for each preference, not for each objective.
WITH_PREFERENCES = {**OPTIONS, "preferences": shared.PREFERENCES}


def check_with_preferences(config: ConfigDict) -> None:
    """As `check`, and the preferences."""
    check(config)
    parse_preferences(config.preferences, len(config.rewards.models))


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, config.train.num_steps)
    labelled = config.pairs.labels == "data"
    require(config, "data.scores", not (labelled and config.data.scores), "'' with given labels")
    by_margin = labelled and config.pairs.margin > 0
    require(config, "pairs.margin", not by_margin, "0 with given labels")
    smooth = config.dpo.label_smoothing == 0 or config.dpo.loss == "sigmoid"
    require(config, "dpo.label_smoothing", smooth, f"0 with config.dpo.loss={config.dpo.loss!r}")
