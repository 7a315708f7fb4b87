"""The user's own functions, named as `package.module:function`, with arguments or without."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from paretohqd_jax.errors import InputError


def find_function(name: str, option: str) -> Callable[..., Any]:
    """Imports the function that `name` stands for; `option` says in messages what named it.

    Of "package.module:function(3,'fast')" it is the function with these as its first arguments.

    Raises:
      InputError: the name is not of that form, or there is no such module or function.
    """
    module_name, colon, call = name.partition(":")
    function_name, bracket, written = call.partition("(")
    if not (module_name and colon and function_name):
        raise InputError(f"{option}: name a function of yours as package.module:function")
    arguments = _arguments(bracket + written, option)
    try:
        module = _import(module_name)
    # TypeError: a relative name such as ".module".
    except (ImportError, SyntaxError, TypeError) as error:
        raise InputError(
            f"{option}: cannot import {module_name} ({error}); "
            "run from the directory it is in, or install it"
        ) from error
    except Exception as error:  # the module is the user's program and may raise anything
        raise InputError(f"{option}: cannot import {module_name}: {_told(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{option}: {module_name} has no function {function_name!r}")
    return functools.partial(function, *arguments) if arguments else function


def _arguments(text: str, option: str) -> tuple[Any, ...]:
    """The literals in brackets, or none where there is nothing."""
    if not text:
        return ()
    try:
        arguments = ast.literal_eval(f"({text[1:-1]},)" if text[1:-1].strip() else "()")
    except (ValueError, SyntaxError) as error:
        raise InputError(
            f"{option}: {text!r} are no arguments; give numbers and quoted texts in brackets"
        ) from error
    if text[-1] != ")":
        raise InputError(f"{option}: {text!r} lacks the closing bracket")
    return arguments


def call(function: Callable[..., Any], place: str, *arguments: Any) -> Any:
    """`function(*arguments)`; what it raises becomes an InputError that begins with `place`."""
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:  # it is the user's and may raise anything
        raise InputError(f"{place}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error of the user's program in a line: what it says, and where it was raised.

    Of the frames below ours, that is the last in the user's file.
    """
    imports = (__file__, "<frozen", os.path.dirname(importlib.__file__))
    frames = traceback.extract_tb(error.__traceback__)
    below = [frame for frame in frames if not frame.filename.startswith(imports)]
    theirs = [frame for frame in below if frame.filename == below[0].filename]
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    message = " ".join(str(error).split())[:200]
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{said}{where}; --debug shows the traceback"


def _import(name: str) -> ModuleType:
    """A module; those of `configs` are the ones that come with the package if there are no others.

    So the configs name their functions in the same way in a checkout and without one.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith("configs.") or error.name not in ("configs", name):
            raise
    return importlib.import_module(f"paretohqd_jax.{name}")
