"""The options of a study of selections, and one check of the whole."""

from __future__ import annotations

import math
from typing import Any

from ml_collections import ConfigDict

from paretohqd_jax.config import default_config, objective_names, parse_preferences, require
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.chebyshev import AUGMENTATION, MIN_GAP
from paretohqd_jax.pareto.selection import RULES
from paretohqd_jax.user_functions import find_function

DATA = "data"  # the population that config.data describes
SETTING_CHOICES = {
    "rule": tuple(RULES),
    "pool": ("layers", "all", "sum"),
    "range_scope": ("data", "pareto", "quantile"),
}


def default_study_config() -> ConfigDict:
    """Every option of a study; locked."""
    shared = default_config()
    data = ("source", "format", "columns", "split", "revision", "scores")
    return ConfigDict(
        {
            "method": "selection_study",
            "seed": 0,
            # What is selected from: "data", and functions "package.module:function" that are given
            # a numpy Generator and return rewards [num_rows, num_objectives].
            "populations": (DATA,),
            "num_draws": 20,  # of rows from each population
            "data": {
                **{name: shared.data[name] for name in data},  # as in every run
                "min_words": 0,  # responses of fewer words are not selected from
                "share": 0.5,  # of the prompts that a draw holds, with all of their rows
            },
            "rewards": shared.rewards.to_dict(),
            "preferences": shared.preferences,
            # What all settings have in common, but for what each of them changes.
            "select": {
                # or "weighted_sum": linear scalarisation; or "chebyshev": the smallest weighted
                # Chebyshev distance to the ideal point
                "rule": "ray",
                "augmentation": AUGMENTATION,  # of chebyshev: weight of the sum beside the maximum
                "min_gap": MIN_GAP,  # of chebyshev: the least gap, on the corners of the simplex
                # "layers": the first non-dominated ones; "all" rows; or "sum", the min_pool_size
                # rows of the largest sum of normalised rewards.
                "pool": "layers",
                "k": 100,
                # N_p; 0 stands for k times the number of preferences, of chebyshev for all rows
                "min_pool_size": 0,
                "range_scope": "data",
                "normalize": True,
                "decimals": -1,  # rewards are rounded to so many first; -1: not rounded
                # One more row, so many ranges below all others in the first objective and at the
                # median of the others; 0: none.
                "outlier": 0.0,
            },
            # What each setting changes of `select`, as "k=50" or "rule=weighted_sum,pool=all"; the
            # others are compared with the first.
            "settings": (),
        }
    ).lock()


def settings_of(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """All options of each setting, by what it changes.

    Raises:
      InputError: a setting is given twice, changes what `config.select` does not have, or gives a
        value that is not valid.
    """
    require(config, "settings", _are_names(config.settings), "one text or more, each once")
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


def _are_names(names: tuple[Any, ...]) -> bool:
    """Whether there are some, all of them texts, none twice."""
    return len(set(names)) == len(names) > 0 and all(isinstance(name, str) for name in names)


def _value(text: str, kind: type) -> Any:
    return {"True": True, "False": False}[text] if kind is bool else kind(text)


def check_config(config: ConfigDict) -> None:
    """Checks each option alone and against the others, before any work starts.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    for name in default_study_config():
        if name not in config:
            raise InputError(
                f"config.{name} is missing; let get_config() start from default_study_config()"
            )
    different = "two or more of different names"
    require(config, "rewards.models", _are_names(config.rewards.models), different)
    objectives = objective_names(config.rewards.models)
    require(config, "rewards.models", len(set(objectives)) == len(objectives) > 1, different)
    preferences = parse_preferences(config.preferences, len(objectives))
    require(config, "preferences", len(preferences) >= 2, "two or more")
    require(config, "num_draws", config.num_draws >= 3, "at least 3: intervals are over draws")
    require(config, "seed", config.seed >= 0, "0 or more")
    populations = config.populations
    require(config, "populations", _are_names(populations), f"{DATA!r} and functions, each once")
    for population in populations:
        if population != DATA:
            find_function(population, f"config.populations {population!r}")
    if DATA in populations:
        _check_data(config, objectives)
    settings_of(config)


def _check_data(config: ConfigDict, objectives: list[str]) -> None:
    if not config.data.source:
        raise InputError("config.data.source is not set; see the comments in the config file")
    formats = ("plain", *PUBLIC_FORMATS)
    require(config, "data.format", config.data.format in formats, f"one of {', '.join(formats)}")
    require(config, "data.min_words", config.data.min_words >= 0, "0 or more")
    require(config, "data.share", 0 < config.data.share <= 1, "in (0, 1]")
    given = set(parse_scores(config.data.scores))
    require(config, "data.scores", given <= set(objectives), f"some of {', '.join(objectives)}")


def _check_setting(name: str, setting: dict[str, Any]) -> None:
    def need(option: str, holds: bool, valid: str) -> None:
        if not holds:
            raise InputError(f"{name}: {option}={setting[option]!r} is not valid; use {valid}")

    for option, choices in SETTING_CHOICES.items():
        need(option, setting[option] in choices, f"one of {', '.join(choices)}")
    k, pool = setting["k"], setting["min_pool_size"]
    need("k", k >= 1, "at least 1")
    need("min_pool_size", pool == 0 or pool >= k, f"0 or >= k = {k}")
    need("augmentation", 0 <= setting["augmentation"] < math.inf, "0 or more")
    need("min_gap", 0 < setting["min_gap"] < math.inf, "more than 0")
    need("decimals", setting["decimals"] >= -1, "-1 or more")
    need("outlier", 0 <= setting["outlier"] < math.inf, "0 or more")
