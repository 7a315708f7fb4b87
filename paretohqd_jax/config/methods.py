"""The options of each method by its name: their defaults, and one check of a whole run."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from paretohqd_jax.config import (
    best_of_n,
    dpo,
    dpo_lw,
    dpo_soup,
    mod,
    modpo,
    mopo,
    morlhf,
    paretohqd,
    raco,
    reward_model,
    rewarded_soup,
    ric,
    selection_study,
    sft,
    sft_soup,
    sipo,
    smooth_tchebycheff,
    structure_study,
)
from paretohqd_jax.config.options import OURS, Option, Options, check_options, defaults, one_of
from paretohqd_jax.errors import InputError, did_you_mean

# Each module has OPTIONS, and check(config), which holds these against each other; some have
# check_supply, see below.
METHODS = {
    "paretohqd": paretohqd,
    "sft": sft,
    "best_of_n": best_of_n,
    "dpo": dpo,
    "dpo_soup": dpo_soup,
    "mod": mod,
    "dpo_lw": dpo_lw,
    "modpo": modpo,
    "mopo": mopo,
    "raco": raco,
    "smooth_tchebycheff": smooth_tchebycheff,
    "sipo": sipo,
    "rewarded_soup": rewarded_soup,
    "sft_soup": sft_soup,
    "ric": ric,
    "morlhf": morlhf,
    "reward_model": reward_model,
    "selection_study": selection_study,
    "structure_study": structure_study,
}


def options_of(method: Any) -> Options:
    """Every option that a method reads.

    Raises:
      InputError: there is no such method.
    """
    if method not in METHODS:
        meant = did_you_mean(str(method), METHODS)
        raise InputError(f"config.method={method!r}: {meant}use one of {', '.join(METHODS)}")
    chosen = Option(method, one_of(method), OURS, "Chosen with the config file.")
    return {"method": chosen, **METHODS[method].OPTIONS}


def default_config(method: str = "paretohqd") -> ConfigDict:
    """Every option that a method reads, with its default; locked.

    Raises:
      InputError: there is no such method.
    """
    return ConfigDict(defaults(options_of(method))).lock()


def check_config(config: ConfigDict) -> None:
    """Checks each option alone and against the others, before any work starts.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    method = config.get("method")
    check_options(config, options_of(method))
    METHODS[method].check(config)


def check_supply(config: ConfigDict, num_rows: int, num_prompts: int) -> None:
    """Checks that the data are enough for all steps, as soon as they are read.

    Args:
      config: checked options.
      num_rows: that may be trained on, before gates.
      num_prompts: different ones of these rows.

    Raises:
      InputError: a step to come would have too few; names the options.
    """
    check = getattr(METHODS[config.method], "check_supply", None)
    if check is not None:
        check(config, num_rows, num_prompts)
