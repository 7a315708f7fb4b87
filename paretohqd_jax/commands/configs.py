"""The command `paretohqd configs`: the configs that come with the package."""

from __future__ import annotations

import argparse
from pathlib import Path

from paretohqd_jax.config.loading import find_config, shipped_configs
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", help="one of those listed without it")
    parser.add_argument("--copy", metavar="FILE", help="a new file to write it to")


def run(options: argparse.Namespace) -> None:
    """Lists the configs that come with the package, or prints or copies one."""
    if not options.name:
        if options.copy:
            raise InputError("--copy: say of which config; `paretohqd configs` lists them")
        listed = shipped_configs()
        width = max(map(len, listed))
        for name, line in listed.items():
            print(f"{name.ljust(width)}  {line}")
        return
    text = find_config(options.name).read_text()
    if not options.copy:
        print(text, end="")
        return
    path = Path(options.copy)
    if path.suffix != ".py" or path.exists():
        raise InputError(f"--copy {path}: give the name of a new file that ends in .py")
    with atomic_path(path) as temporary:
        temporary.write_text(text)
    print(f"{path}: a copy of {options.name}; run it with --config={path}")
