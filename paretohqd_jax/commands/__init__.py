"""Parts of the library as commands on files, such as `paretohqd select scores.parquet`.

Each is a module of its own: `add_arguments` says what it takes and `run` does it; the first line of
`run`'s docstring is its help.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from types import ModuleType

from paretohqd_jax.commands.arguments import Parser

PATHS = (  # in which ~ is the home
    "file", "prompts", "instructions", "workdir", "out", "plot", "json", "temperature_2", "cache",
)  # fmt: skip
COMMANDS = (
    "convert", "score", "select", "rank", "hypervolume", "inspect", "compare", "sample", "measure",
    "chat", "merge", "study", "options", "configs",
)  # fmt: skip


def run(argv: Sequence[str]) -> None:
    """Parses and runs one command, whose name comes first.

    Raises:
      InputError: an option is unknown, missing or does not fit.
    """
    options = parse(argv)
    options.command = shlex.join(["paretohqd", *argv])
    for name in PATHS:
        if getattr(options, name, None):
            setattr(options, name, os.path.expanduser(getattr(options, name)))
    _module(argv[0]).run(options)


def parse(argv: Sequence[str]) -> Namespace:
    """The options of a command; arguments and errors as of `run`."""
    module = _module(argv[0])
    parser = Parser(prog=f"paretohqd {argv[0]}", description=module.run.__doc__)
    module.add_arguments(parser)
    words = _join_negative(argv[1:])
    parser.check_names(words)
    return parser.parse_args(words)


def summaries() -> dict[str, str]:
    """In a line, what each command is for."""
    return {name: _module(name).run.__doc__.split("\n")[0] for name in COMMANDS}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"paretohqd_jax.commands.{name}")


def _join_negative(argv: Sequence[str]) -> list[str]:
    """`--reference -9,-9` as `--reference=-9,-9`: argparse takes -9,-9 alone for an option."""
    joined: list[str] = []
    for argument in argv:
        option = joined and joined[-1].startswith("--") and "=" not in joined[-1]
        if option and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
