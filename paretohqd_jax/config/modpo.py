"""The options of MODPO: a DPO of one objective with the others as margins."""

from __future__ import annotations

from ml_collections import ConfigDict

from paretohqd_jax.config import preference
from paretohqd_jax.config.objectives import objective_names, parse_preferences
from paretohqd_jax.config.options import MODPO, OURS, TEXT, Option, one_of, require
from paretohqd_jax.errors import InputError

OPTIONS = {
    **preference.WITH_PREFERENCES,
    "modpo": {
        "primary": Option(
            "",
            TEXT,
            OURS,
            'The objective whose pairs are trained on; "": of each preference, the heaviest one, '
            "by whose weight the margins are divided.",
        ),
        "margins": Option(
            "implicit",
            one_of("implicit", "rewards"),
            MODPO,
            'The other objectives\' rewards: "implicit", of their DPO models, or "rewards", of '
            "config.rewards.models, which need pairs.labels='rewards'.",
        ),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    preference.check_with_preferences(config)
    names = objective_names(config.rewards.models)
    require(config, "modpo.primary", config.modpo.primary in ("", *names), f"one of {names}")
    scored = config.modpo.margins == "implicit" or config.pairs.labels == "rewards"
    require(config, "modpo.margins", scored, "'implicit' with config.pairs.labels='data'")
    preferences = parse_preferences(config.preferences, len(names))
    if not any(is_trained(own, names, config.modpo.primary) for own in preferences.tolist()):
        raise InputError(
            f"config.preferences={config.preferences!r}: MODPO trains models of several "
            "objectives, and there is none with weight on two of them; use config.method='dpo'"
        )


def is_trained(preference: list[float], names: list[str], primary: str) -> bool:
    """Whether MODPO has a model of its own for a preference: others are served by DPO's."""
    first = not primary or preference[names.index(primary)] > 0
    return first and max(preference) < 1
