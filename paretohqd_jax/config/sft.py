"""The options of supervised fine-tuning of one model, which knows no preference."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.options import OURS, Option, at_least, one_of

OPTIONS = {
    **shared.ALIGNMENT,
    "draw": {
        "rule": Option(
            "random", one_of("random", "all"), OURS, "The rows to train on: k random ones, or all."
        ),
        "k": Option(100, at_least(1), OURS, "Random rows; as many as train a model of ParetoHqD."),
        "gates": shared.GATES,
    },
    "train": {
        "num_steps": Option(400, at_least(1), OURS, "As many as ParetoHqD's two stages have."),
        **shared.TRAIN,
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, config.train.num_steps)


def check_supply(config: ConfigDict, num_rows: int, num_prompts: int) -> None:
    """Raises InputError if so many training rows are too few to draw from."""
    if config.draw.rule == "random":
        checks.check_rows(config.data.source, num_rows, config.draw.k, "config.draw.k")
