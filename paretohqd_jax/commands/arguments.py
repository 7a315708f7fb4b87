"""Arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from paretohqd_jax.errors import InputError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Its errors are InputErrors, shown in one line like all others."""

    def check_names(self, argv: Sequence[str]) -> None:
        """Raises InputError for an option that there is not, before one that is missing is told."""
        known = [word for action in self._actions for word in action.option_strings]
        for word in argv:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                meant = did_you_mean(name, known)
                raise InputError(f"unknown option {name}; {meant}see {self.prog} --help")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{' '.join(message.split())}; see {self.prog} --help")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Which model of a finished run."""
    parser.add_argument("--workdir", required=True, help="run directory whose models are trained")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--preference", default="", help="one weight per objective: 0.8,0.2")
    which.add_argument("--policy", default="", help="a label of policies.json, or FAMILY/LABEL")
    parser.add_argument(
        "--interpolate", action="store_true", help="mix the neighbours of one that was not trained"
    )
    parser.add_argument("--model", default="", help="where the base model lies, if it has moved")


def add_exact(parser: argparse.ArgumentParser) -> None:
    """Whether a hypervolume of many objectives may be an estimate."""
    parser.add_argument(
        "--exact", action="store_true",
        help="compute hypervolumes that would be estimated, however long it takes",
    )  # fmt: skip


def positive_integer(text: str) -> int:
    """An option's value, which must be a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
