"""The command `paretohqd options`: what a config file may set, from where it is declared."""

from __future__ import annotations

import argparse

from paretohqd_jax.config.table import options_page, options_text
from paretohqd_jax.errors import InputError


def options_command(options: argparse.Namespace) -> None:
    """Prints the options of a method, or of all: default, valid values and source."""
    if options.markdown and options.method:
        raise InputError("--markdown prints the page of all methods; leave METHOD out")
    print(options_page() if options.markdown else options_text(options.method))
