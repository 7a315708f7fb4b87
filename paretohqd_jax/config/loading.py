"""Config files, by path or by the name of one that comes with the package; and their overrides."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from paretohqd_jax.config.objectives import names_in
from paretohqd_jax.config.options import flat
from paretohqd_jax.errors import InputError, did_you_mean

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
    meant = did_you_mean(wanted, shipped_configs())
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
    argv = _with_tuples(config, argv)
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(argv))
        return values(list(argv))
    except flags.Error as error:
        raise InputError(str(error).splitlines()[0]) from error
    except Exception as error:  # whatever a type's parser raises
        raise InputError(_mistake(error)) from error


def _with_tuples(config: ConfigDict, argv: Sequence[str]) -> list[str]:
    """The words with the value of each option that holds several written as Python does.

    So `a,b`, `a` and `('a','b')` all do.

    Raises:
      InputError: there is no such option.
    """
    options = flat(config.to_dict())
    words = list(argv)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            continue
        option = name.removeprefix("--config.")
        _check_exists(option, options, config)
        if isinstance(options.get(option), tuple):
            if equals:
                words[index] = f"{name}={names_in(value)!r}"
            elif index + 1 < len(words):
                words[index + 1] = repr(names_in(words[index + 1]))
    return words


def _check_exists(option: str, options: dict[str, Any], config: ConfigDict) -> None:
    """Raises InputError naming the first part of an option's name that is not there."""
    group: Any = config
    parts = option.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(group, ConfigDict) or part not in group:
            inside = f" of config.{'.'.join(parts[:depth])}" if depth else ""
            meant = did_you_mean(option, options, "config.")
            raise InputError(
                f"no such option or key: {part}{inside}; {meant}`paretohqd options "
                f"{config.get('method', 'METHOD')}` lists all"
            )
        group = group[part]


def _mistake(error: Exception) -> str:
    """The last line of an error, or the option that it could not find."""
    if isinstance(error, (AttributeError, KeyError)) and (key := LOST_KEY.match(str(error))):
        return f"no such option or key: {key[1]}; `paretohqd options METHOD` lists all"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
