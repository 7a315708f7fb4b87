"""The options of a study of selections, which trains nothing."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from paretohqd_jax.config import checks, paretohqd, shared
from paretohqd_jax.config.objectives import objective_names, parse_preferences
from paretohqd_jax.config.options import (
    OURS,
    Option,
    Valid,
    at_least,
    changed,
    is_valid,
    one_of,
    require,
)
from paretohqd_jax.errors import InputError
from paretohqd_jax.user_functions import find_function

DATA = "data"  # the population that config.data describes


def _are_names(names: tuple[Any, ...]) -> bool:
    """Whether there are some, all of them texts, none twice."""
    return len(set(names)) == len(names) > 0 and all(isinstance(name, str) for name in names)


# What all settings have in common, but for what each of them changes.
SELECT = {
    **{name: option for name, option in paretohqd.SELECT.items() if name != "gates"},
    "k": Option(100, at_least(1), OURS, "Rows per preference."),
    "pool": Option(
        "layers",
        one_of("layers", "all", "sum"),
        OURS,
        'What is selected from: "layers", the first non-dominated ones; "all" rows; or "sum", the '
        "min_pool_size rows of the largest sum of normalised rewards.",
    ),
    "decimals": Option(
        -1,
        Valid("-1 or more", lambda value: value >= -1),
        OURS,
        "Rewards are rounded to so many first; -1: not rounded.",
    ),
    "outlier": Option(
        0.0,
        at_least(0),
        OURS,
        "One more row, so many ranges below all others in the first objective and at the median of "
        "the others; 0: none.",
    ),
}
OPTIONS = {
    "seed": shared.SEED,
    "populations": Option(
        (DATA,),
        Valid(f"{DATA!r} and functions, each once", _are_names),
        OURS,
        '"data", and functions "package.module:function" that are given a numpy Generator and '
        "return rewards [num_rows, num_objectives].",
    ),
    "num_draws": Option(
        20,
        Valid("at least 3: intervals are over draws", lambda value: value >= 3),
        OURS,
        "Draws of rows from each population.",
    ),
    "data": {
        **shared.READING,
        "scores": shared.SCORES,
        "min_words": Option(0, at_least(0), OURS, "Responses of fewer words are left out."),
        "share": Option(
            0.5,
            Valid("in (0, 1]", lambda value: 0 < value <= 1),
            OURS,
            "Of the prompts that a draw holds, with all of their rows.",
        ),
    },
    "rewards": shared.REWARDS,
    "preferences": changed(shared.PREFERENCES, "11"),
    "select": SELECT,
    "settings": Option(
        (),
        Valid("one text or more, each once", _are_names),
        OURS,
        'What each setting changes of select, as "k=50" or "rule=weighted_sum,pool=all"; the '
        "others are compared with the first.",
    ),
}


def settings_of(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """All options of each setting, by what it changes.

    Raises:
      InputError: a setting is given twice, changes what `config.select` does not have, or gives a
        value that is not valid.
    """
    settings = {}
    for text in config.settings:
        setting = config.select.to_dict()
        for change in text.split(","):
            option, _, value = (part.strip() for part in change.partition("="))
            if option not in setting:
                raise InputError(
                    f"config.settings {text!r}: write NAME=VALUE with a name of config.select: "
                    f"{', '.join(setting)}"
                )
            try:
                setting[option] = _value(value, type(setting[option]))
            except (KeyError, ValueError) as error:
                kind = type(setting[option])
                wanted = "True or False" if kind is bool else kind.__name__
                raise InputError(
                    f"config.settings {text!r}: {option}={value!r} is not valid; give {wanted}"
                ) from error
        _check_setting(f"config.settings {text!r}", setting)
        settings[text] = setting
    return settings


def _value(text: str, kind: type) -> Any:
    return {"True": True, "False": False}[text] if kind is bool else kind(text)


def _check_setting(name: str, setting: dict[str, Any]) -> None:
    def need(option: str, holds: bool, valid: str) -> None:
        if not holds:
            raise InputError(f"{name}: {option}={setting[option]!r} is not valid; use {valid}")

    for option, declared in SELECT.items():
        need(option, is_valid(declared, setting[option]), declared.valid.words)
    k, pool = setting["k"], setting["min_pool_size"]
    need("min_pool_size", pool == 0 or pool >= k, f"0 or >= k = {k}")


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    preferences = parse_preferences(config.preferences, len(objective_names(config.rewards.models)))
    require(config, "preferences", len(preferences) >= 2, "two or more")
    for population in config.populations:
        if population != DATA:
            find_function(population, f"config.populations {population!r}")
    if DATA in config.populations:
        checks.check_sources(config, "data.source")
        checks.check_scores(config)
    settings_of(config)
