"""The options of best-of-n: samples of the base model, and one stage of fine-tuning."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import OURS, Option, at_least

OPTIONS = {
    **shared.ALIGNMENT,
    "preferences": shared.PREFERENCES,
    "best_of_n": {"n": Option(8, at_least(2), OURS, "Answers of the base model to each prompt.")},
    "train": {
        "num_steps": Option(400, at_least(1), OURS, "As many as ParetoHqD's two stages have."),
        **shared.TRAIN,
    },
    "generate": shared.GENERATE,
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, config.train.num_steps)
    parse_preferences(config.preferences, len(config.rewards.models))
