"""The options of ParetoHqD: a selection for each preference, and two stages of fine-tuning."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, shared
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    OURS,
    PAPER,
    SWITCH,
    Option,
    Valid,
    at_least,
    one_of,
    require,
)
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import representatives
from paretohqd_jax.pareto.chebyshev import AUGMENTATION, MIN_GAP
from paretohqd_jax.pareto.selection import RULES

STAGE2_SHARE = 0.5  # of the rows that stage 1 trains on
SELECT = {
    "rule": Option(
        "ray",
        one_of(*RULES),
        PAPER,
        '"ray": the pooled rows nearest to the preference\'s ray (paper); "weighted_sum": those of '
        'the largest weighted sum; "chebyshev": those of the smallest weighted Chebyshev distance '
        "to the ideal point (ours).",
    ),
    "augmentation": Option(
        AUGMENTATION,
        at_least(0),
        OURS,
        "Of chebyshev: the weight of the sum of gaps beside the largest one.",
    ),
    "min_gap": Option(
        MIN_GAP, ABOVE_ZERO, OURS, "Of chebyshev: the least gap, on the corners of the simplex."
    ),
    "k": Option(100, at_least(2), PAPER, "Rows per preference; stage 2 takes half."),
    "min_pool_size": Option(
        0,
        Valid("0, or k or more", lambda value: value >= 0),
        OURS,
        "N_p, the least size of the pool; 0: k times the number of preferences, of chebyshev all "
        "rows.",
    ),
    "range_scope": Option(
        "data",
        one_of("data", "pareto", "quantile"),
        OURS,
        "The rows whose lowest and highest rewards set the directions.",
    ),
    "normalize": Option(
        True, SWITCH, OURS, "Distances are in units of the range of each objective."
    ),
    "gates": shared.GATES,
}
OPTIONS = {
    **shared.ALIGNMENT,
    "preferences": shared.PREFERENCES,
    "select": SELECT,
    "train": {
        "stage1_steps": Option(200, at_least(1), PAPER, "Of fine-tuning on rows of the data."),
        "stage2_steps": Option(200, at_least(1), PAPER, "Of fine-tuning on generated rows."),
        **shared.TRAIN,
    },
    "generate": shared.GENERATE,
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, min(config.train.stage1_steps, config.train.stage2_steps))
    check_pool(config)
    parse_preferences(config.preferences, len(config.rewards.models))
    check_generated(config, config.generate.num_prompts)


def check_generated(config: ConfigDict, num_prompts: int) -> None:
    """Raises InputError if so many prompts give too few responses to select from for stage 2."""
    preferences = parse_preferences(config.preferences, len(config.rewards.models))
    num_models, wanted = len(representatives(preferences)), int(config.select.k * STAGE2_SHARE)
    if num_models * num_prompts < wanted:
        raise InputError(
            f"stage 2 selects {wanted} rows per preference (half of config.select.k="
            f"{config.select.k}), but {num_models} models that answer {num_prompts} training "
            f"prompts give {num_models * num_prompts} at most; raise config.generate.num_prompts="
            f"{config.generate.num_prompts}, give more prompts, or lower config.select.k"
        )


def check_supply(config: ConfigDict, num_rows: int, num_prompts: int) -> None:
    """Raises InputError if so many training rows are too few for a step to come."""
    checks.check_rows(config.data.source, num_rows, config.select.k, "config.select.k")
    check_generated(config, min(config.generate.num_prompts, num_prompts))


def check_pool(config: ConfigDict) -> None:
    """Raises InputError for a pool that may hold fewer rows than are selected from it."""
    pool = config.select.min_pool_size
    require(config, "select.min_pool_size", pool == 0 or pool >= config.select.k, "0 or >= k")
