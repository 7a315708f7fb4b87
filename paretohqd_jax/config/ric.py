"""The options of Rewards-in-Context: one adapter, asked for scores in its prompt."""

from __future__ import annotations

import contextlib

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, sft, shared
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    OURS,
    RIC,
    SWITCH,
    Option,
    Valid,
    at_least,
    changed,
    one_of,
)
from paretohqd_jax.pareto.targets import MAPPINGS

NORMAL_RANGE = (-4.0, 4.0)  # about the least and the most of 50,000 normal draws
MAX_ITERATIONS = 3


def parse_range(text: str) -> tuple[float, float] | None:
    """The lowest and the highest score to ask for in `config.ric.range`; None: the data's own.

    Raises ValueError for a text that is no range.
    """
    if text in ("data", "normal"):
        return None if text == "data" else NORMAL_RANGE
    low, high = map(float, text.split(","))
    if not -100 < low < high < 100:
        raise ValueError
    return low, high


def _is_range(text: str) -> bool:
    with contextlib.suppress(ValueError):
        parse_range(text)
        return True
    return False


OPTIONS = {
    **shared.ALIGNMENT,
    "preferences": shared.PREFERENCES,
    "ric": {
        "mapping": Option(
            "l2",
            one_of(*MAPPINGS),
            RIC,
            "From a preference to the scores that are asked for, as shares of the range: the "
            'weights over their Euclidean norm ("l2"), the heaviest objective at its highest and '
            'the others by M times their weight ("linf"), or the weights ("linear").',
        ),
        "range": Option(
            "data",
            Valid("data, normal or LOW,HIGH such as -1.5,2", _is_range),
            OURS,
            'The lowest and the highest standardised score to ask for: "data", each objective\'s '
            'own in the training rows; "normal", -4 and 4, as the code of RiC, whatever the data '
            "hold; or LOW,HIGH within the data's.",
        ),
        "iterations": Option(
            1,
            Valid(f"0 to {MAX_ITERATIONS}", lambda value: 0 <= value <= MAX_ITERATIONS),
            RIC,
            "Online ones: answers to random scores near the front are scored, and trained on.",
        ),
        "quantile": Option(
            0.7,
            Valid("in [0, 1)", lambda value: 0 <= value < 1),
            RIC,
            "Online training takes the rows that reach this quantile of some objective's scores.",
        ),
        "num_original": Option(
            10_000, at_least(0), RIC, "Rows of the data beside the generated ones, by the quantile."
        ),
        "legacy_no_eos": Option(
            False, SWITCH, OURS, "Responses are trained without their end, as in RiC's paper."
        ),
        "legacy_round": Option(
            False, SWITCH, OURS, "Rewards of the data are rounded to 0.1 before standardisation."
        ),
        "legacy_clean": Option(
            False, SWITCH, OURS, 'Answers or prompts with "....." or three ":)" are left out.'
        ),
    },
    "draw": {**sft.OPTIONS["draw"], "rule": changed(sft.OPTIONS["draw"]["rule"], "all", RIC)},
    "train": {
        "offline_steps": Option(20_000, at_least(1), RIC, "Of fine-tuning on rows of the data."),
        "online_steps": Option(4_000, at_least(1), RIC, "Of each online iteration."),
        **shared.TRAIN,
        "learning_rate": changed(shared.TRAIN["learning_rate"], 1.414e-4, RIC),
        "online_learning_rate": Option(1e-5, ABOVE_ZERO, RIC, "Of online training; constant."),
    },
    "generate": {
        **shared.GENERATE,
        "num_prompts": Option(
            20_000, at_least(1), RIC, "Random prompts of training rows that an iteration answers."
        ),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    shortest = min(config.train.offline_steps, config.train.online_steps)
    checks.check_alignment(config, shortest)
    parse_preferences(config.preferences, len(config.rewards.models))


check_supply = sft.check_supply
