"""Config files, by path or by the name of one that comes with the package; and their overrides."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from paretohqd_jax.errors import InputError

SHIPPED = Path(__file__).parents[1] / "configs"  # in a checkout a link to the folder of that name
LOST_KEY = re.compile(r"[\\\"']+(\w+)[\\\"']")  # an option that ml_collections does not know


def shipped_configs() -> dict[str, str]:
    """The configs that come with the package: name, such as "studies/k", and first line."""
    modules = {path: ast.parse(path.read_text()) for path in sorted(SHIPPED.rglob("*.py"))}
    return {
        path.relative_to(SHIPPED).with_suffix("").as_posix(): _first_line(module)
        for path, module in modules.items()
        if any(isinstance(part, ast.FunctionDef) and part.name in ("get_config", "get_study")
               for part in module.body)
    }  # fmt: skip


def _first_line(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").partition("\n")[0]


def find_config(name: str, flag: str = "--config=") -> Path:
    """The file of a config: a path that ends in .py, or a name among `shipped_configs`.

    `flag` stands before the name in messages.

    Raises:
      InputError: there is none.
    """
    path = Path(name)
    if path.suffix != ".py":
        path = SHIPPED / f"{name}.py"
    if path.is_file():
        return path
    wanted = name.removesuffix(".py").removeprefix("configs/")
    near = difflib.get_close_matches(wanted, shipped_configs(), n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    kind = "no such file" if name.endswith(".py") else "no config of this name"
    raise InputError(f"{flag}{name}: {kind}; {meant}`paretohqd configs` lists what there is")


def load_config(source: str) -> ConfigDict:
    """What get_config() of a config returns, locked.

    Args:
      source: a path or name as of `find_config`, and after a colon what get_config() is given.

    Raises:
      InputError: there is no such config, or its program fails; the message is one line.
    """
    config = run_config(source, "get_config")
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{find_config(source.partition(':')[0])}: get_config() must return a ConfigDict, best "
            "that of default_config()"
        )
    return config.lock()


def run_config(source: str, function: str, flag: str = "--config=") -> Any:
    """What a function of a config's program returns; arguments and errors as of `load_config`."""
    name, colon, argument = source.partition(":")
    path = find_config(name, flag)
    spec = importlib.util.spec_from_file_location("_config", path)
    module = sys.modules["_config"] = importlib.util.module_from_spec(spec)
    arguments = (argument,) if colon else ()
    try:
        spec.loader.exec_module(module)
        inspect.signature(getattr(module, function)).bind(*arguments)
        return getattr(module, function)(*arguments)
    except InputError:
        raise
    except Exception as error:  # it is the user's code and may raise anything
        raise InputError(f"{path}: {_mistake(error)}") from error


def override(config: ConfigDict, argv: Sequence[str]) -> list[str]:
    """Sets the options that `argv` changes, as in --config.select.k=50; returns the other words.

    Raises:
      InputError: there is no such option, or it is of another type.
    """
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(argv))
        return values(list(argv))
    except flags.Error as error:
        raise InputError(str(error).splitlines()[0]) from error
    except Exception as error:  # whatever a type's parser raises
        raise InputError(_mistake(error, config.get("method", "METHOD"))) from error


def _mistake(error: Exception, method: str = "METHOD") -> str:
    """The last line of an error, or the option that it could not find."""
    if isinstance(error, (AttributeError, KeyError)) and (key := LOST_KEY.match(str(error))):
        return f"no such option or key: {key[1]}; `paretohqd options {method}` lists all"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
