"""The options of RACO: preference pairs, and a step that conflicting gradients agree on."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import preference
from paretohqd_jax.config.options import RACO, Option, Valid, require

# Faces of the simplex are tried one and all: 2^M - 1 systems of M equations.
MAX_OBJECTIVES = 10
OPTIONS = {
    **preference.WITH_PREFERENCES,
    "raco": {
        "conflict": Option(
            0.4,
            Valid("in [0, 1)", lambda value: 0 <= value < 1),
            RACO,
            "c, how far a step may turn towards the objective that the weights serve worst; 0: not "
            "at all, which is dpo_lw.",
        ),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    few = len(config.rewards.models) <= MAX_OBJECTIVES
    require(config, "rewards.models", few, f"up to {MAX_OBJECTIVES} with config.method='raco'")
    preference.check_with_preferences(config)
