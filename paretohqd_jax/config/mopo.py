"""The options of MOPO: one objective is maximised, the others stay above thresholds."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, preference, shared
from paretohqd_jax.config.objectives import names_in, objective_names
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    MOPO,
    OURS,
    TEXT,
    Option,
    at_least,
    changed,
    one_of,
    require,
)
from paretohqd_jax.errors import InputError

# What a policy is called by its levels.
LABELS = {"given": "b={}", "reference": "b={}ref", "adaptive": "beta={}"}


class TradeOff(NamedTuple):
    """What one model is trained for.

    Attributes:
      label: of its policy.
      primary: the objective that is maximised.
      levels: of each objective, as `config.mopo.thresholds` says; that of the primary one is
        not used.
    """

    label: str
    primary: str
    levels: tuple[float, ...]


OPTIONS = {
    **shared.ALIGNMENT,
    "pairs": {
        "labels": preference.PAIRS["labels"],
        "per_prompt": preference.PAIRS["per_prompt"],
        "conflict": preference.PAIRS["conflict"],
    },
    "mopo": {
        "primary": Option(
            "",
            TEXT,
            OURS,
            'The objectives that are maximised, names with commas between; "": each in turn. There '
            "is a model for each of them and each of the levels.",
        ),
        "thresholds": Option(
            "reference",
            one_of(*LABELS),
            OURS,
            'What the other objectives stay above, b: "given", win rates; "reference", multiples '
            'of what the data have; "adaptive", the paper\'s: at first multiples of that, then at '
            "each new reference of the bound under it.",
        ),
        "levels": Option(
            "0.9;1;1.1",
            TEXT,
            OURS,
            'Those win rates or multiples, semicolons between models; "0.9,1;1,1": a number for '
            "each objective in place of one for all.",
        ),
        "tau": Option(0.08, ABOVE_ZERO, MOPO, "Weight of the divergence from the reference."),
        "epsilon": Option(
            1e-4,
            ABOVE_ZERO,
            OURS,
            "Radius of the ball of the constraints' worst case, in nats. The paper's 0.15 lowers "
            "bounds by more than its thresholds leave, and so does 0.001 on some data.",
        ),
        "refresh_every": Option(
            500, at_least(1), MOPO, "t0, steps from one reference to the next; a run has its own."
        ),
        "temperature": Option(
            1.0,
            at_least(0),
            OURS,
            "Of labels by rewards: a response is preferred by the sigmoid of the difference of "
            "rewards over so many of their standard deviations; 0: if its reward is larger.",
        ),
        "multiplier_rate": Option(2.0, ABOVE_ZERO, OURS, "Of lambda, per unit of slack."),
        "chi_rate": Option(0.5, ABOVE_ZERO, OURS, "Of log chi."),
        "max_multiplier": Option(50.0, ABOVE_ZERO, OURS, "The largest lambda."),
        "max_weight": Option(20.0, at_least(1), OURS, "c, the largest weight of a row; mean 1."),
        "min_sample_size": Option(
            20.0, at_least(1), OURS, "Rows that the weights must be worth, or the run fails."
        ),
        "sharpness": Option(
            0.0,
            at_least(0),
            OURS,
            "0: the Lagrangian (MOPO-Lag); else a log barrier (MOPO-LB), which keeps a slack of "
            "about 1 / (sharpness lambda).",
        ),
    },
    "train": {
        "num_steps": Option(400, at_least(1), OURS, "Of each adapter (paper: 10,000)."),
        **shared.TRAIN_ALONE,
        "batch_size": changed(shared.TRAIN["batch_size"], 8, MOPO),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    checks.check_alignment(config, config.train.num_steps)
    labelled = config.pairs.labels == "data"
    require(config, "data.scores", not (labelled and config.data.scores), "'' with given labels")
    as_it_comes = labelled or config.pairs.conflict == -1
    require(config, "pairs.conflict", as_it_comes, "-1 without config.pairs.labels='data'")
    trade_offs(config)


def trade_offs(config: ConfigDict) -> list[TradeOff]:
    """What each model of a run is trained for, by primary objective and then by level.

    Raises:
      InputError: there is no such objective, or a level cannot be one.
    """
    names = objective_names(config.rewards.models)
    primaries = names_in(config.mopo.primary) or tuple(names)
    known = set(primaries) <= set(names) and len(set(primaries)) == len(primaries)
    require(config, "mopo.primary", known, f"some of {', '.join(names)}, each once")
    found = []
    for primary in primaries:
        for text in config.mopo.levels.split(";"):
            levels = _levels(config, text, len(names))
            told = [level for name, level in zip(names, levels, strict=True) if name != primary]
            told = told[:1] if len(set(told)) == 1 else told
            label = LABELS[config.mopo.thresholds].format("+".join(f"{x:g}" for x in told))
            label = re.sub(r"[^\w.,=+-]", "-", f"{primary},{label}")  # of a file, too
            found.append(TradeOff(label, primary, levels))
    labels = [each.label for each in found]
    require(config, "mopo.levels", len(set(labels)) == len(labels), "different ones")
    return found


def _levels(config: ConfigDict, text: str, num_objectives: int) -> tuple[float, ...]:
    """The levels of one model, `[num_objectives]`."""
    try:
        levels = tuple(float(number) for number in text.split(","))
    except ValueError:
        levels = ()
    most = math.inf if config.mopo.thresholds == "reference" else 1.0
    fits = all(0 < level <= most and level < math.inf for level in levels)
    if len(levels) not in (1, num_objectives) or not fits:
        range_of = "above 0" if most == math.inf else "above 0 and up to 1"
        raise InputError(
            f"config.mopo.levels={config.mopo.levels!r}: {text!r} is not valid; write a number "
            f"{range_of}, or {num_objectives} with commas between, one per objective"
        )
    return levels if len(levels) == num_objectives else levels * num_objectives
