"""The command `paretohqd options`: what a config file may set, from where it is declared."""

from __future__ import annotations

import argparse

from paretohqd_jax.config.table import options_page, options_text
from paretohqd_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", nargs="?", default="", help="default: all methods")
    parser.add_argument("--markdown", action="store_true", help="as the page docs/options.md")


def run(options: argparse.Namespace) -> None:
    """Prints the options of a method, or of all: default, valid values and source."""
    if options.markdown and options.method:
        raise InputError("--markdown prints the page of all methods; leave METHOD out")
    print(options_page() if options.markdown else options_text(options.method))
