"""What an option is: its default, what is valid, where the default comes from, what it is for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from paretohqd_jax.errors import InputError, did_you_mean

PAPER = "ParetoHqD"
RIC = "RiC"
MODPO = "MODPO"
SIPO = "SIPO"
MOPO = "MOPO"
RACO = "RACO"
OURS = "ours"
SOURCES = {
    PAPER: "the paper, arXiv 2504.16628",
    RIC: "the code of Rewards-in-Context, arXiv 2402.10207, whose settings the paper's experiments "
    "follow where it is silent",
    MODPO: "the code of MODPO, arXiv 2310.03708",
    SIPO: "SIPO, arXiv 2502.14354",
    RACO: "the code of RACO, arXiv 2602.02495",
    MOPO: "notes on MOPO, arXiv 2505.10892, whose code is not public",
    OURS: "chosen here",
}


@dataclasses.dataclass(frozen=True)
class Valid:
    """The values that an option may have: in words, and whether one is among them.

    `holds` may raise an InputError of its own that says more.
    """

    words: str
    holds: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a run. Its type is that of its default."""

    default: Any
    valid: Valid
    source: str  # one of SOURCES
    help: str = ""


# By name; a group of options is a dict of its own.
Options = Mapping[str, Option | Mapping[str, Option]]

TEXT = Valid("a text", lambda value: isinstance(value, str))
TEXTS = Valid("texts", lambda values: all(isinstance(value, str) for value in values))
SWITCH = Valid("True or False", lambda value: isinstance(value, bool))


def one_of(*choices: str) -> Valid:
    """One of some texts."""
    return Valid(f"one of {', '.join(choices)}", lambda value: value in choices)


def at_least(least: float) -> Valid:
    """A finite number, `least` or more."""
    words = "0 or more" if least == 0 else f"at least {least}"
    return Valid(words, lambda value: least <= value < math.inf)


ABOVE_ZERO = Valid("above 0", lambda value: 0 < value < math.inf)


def changed(option: Option, default: Any, source: str = OURS) -> Option:
    """The same option with another default."""
    return dataclasses.replace(option, default=default, source=source)


def defaults(options: Options) -> dict[str, Any]:
    """The default of each option, in groups as these are."""
    return {
        name: option.default if isinstance(option, Option) else defaults(option)
        for name, option in options.items()
    }


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options, or their values, by their whole names, such as `train.num_steps`."""
    found = {}
    for name, value in options.items():
        nested = isinstance(value, dict)
        found.update(flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return found


def check_options(config: ConfigDict, options: Options) -> None:
    """Checks that `config` has these options and no others, and the value of each alone.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    _check_names(config, options, "config")
    for name, option in flat(options).items():
        require(config, name, is_valid(option, value_of(config, name)), option.valid.words)


def is_valid(option: Option, value: Any) -> bool:
    """Whether the option may have this value."""
    try:
        return option.valid.holds(value)
    except TypeError:  # None, which a ConfigDict takes for any type
        return False


def require(config: ConfigDict, name: str, holds: bool, valid: str) -> None:
    """Raises InputError naming an option and its value unless `holds`; `valid` is what would be."""
    if not holds:
        raise InputError(f"config.{name}={value_of(config, name)!r} is not valid; use {valid}")


def value_of(config: ConfigDict, name: str) -> Any:
    """The value of an option by its whole name, such as "select.k"."""
    for part in name.split("."):
        config = config[part]
    return config


def _check_names(config: ConfigDict, options: Options, group: str) -> None:
    for name, option in sorted(options.items()):
        grouped = not isinstance(option, Option)
        if name not in config or (grouped and not isinstance(config[name], ConfigDict)):
            raise InputError(
                f"{group}.{name} is missing; let get_config() start from default_config(METHOD)"
            )
        if grouped:
            _check_names(config[name], option, f"{group}.{name}")
    for name in config:
        if name not in options:
            meant = did_you_mean(name, options)
            raise InputError(f"{group}.{name}: no such option; {meant}see paretohqd options METHOD")
