"""The options of soups of models that are fine-tuned on the best rows of one objective each."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.dpo_soup import AVERAGE
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import OURS, Option, at_least

OPTIONS = {
    **shared.ALIGNMENT,
    "preferences": shared.PREFERENCES,
    "sft_soup": {"average": AVERAGE},
    "select": {
        "k": Option(100, at_least(1), OURS, "Rows of each objective, the best on it."),
        "gates": shared.GATES,
    },
    "train": {
        "num_steps": Option(400, at_least(1), OURS, "Of each objective's model."),
        **shared.TRAIN,
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, config.train.num_steps)
    parse_preferences(config.preferences, len(config.rewards.models))


def check_supply(config: ConfigDict, num_rows: int, num_prompts: int) -> None:
    """Raises InputError if so many training rows are too few to select from."""
    checks.check_rows(config.data.source, num_rows, config.select.k, "config.select.k")
