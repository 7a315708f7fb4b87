"""The user's own functions, named as `package.module:function`, with arguments or without."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from paretohqd_jax.errors import InputError

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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


def definition_digest(function: Callable[..., Any], name: str) -> str | None:
    """Identifies a function by its definition, or None where there is no text of it.

    That is the text of the function and of all that it uses in its own file, functions, classes,
    constants and lines of import, whatever their comments and layout. What is imported is not read.
    Of "package.module:function" it is also what makes `function` there, such as a call. Where that
    is not at the top of the file, all of the file counts.
    """
    places = []
    if ":" in name:
        module_name, _, written = name.partition(":")
        module = _import(module_name)
        places.append((getattr(module, "__file__", None), written.partition("(")[0]))
    while isinstance(function, functools.partial):
        function = function.func
    made = inspect.unwrap(function)
    made = made if hasattr(made, "__qualname__") else type(made)  # of an object that is called
    with contextlib.suppress(TypeError):  # what is not written in Python
        places.append((inspect.getsourcefile(made), made.__qualname__.partition(".")[0]))
    try:
        texts = [_definition(*place) for place in dict.fromkeys(places) if place[0]]
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    return hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else None


def _definition(path: str, name: str) -> str:
    """The statements at the top of a file that `name` needs; all where none there binds it."""
    statements = ast.parse(Path(path).read_text("utf-8")).body
    needed: list[ast.stmt] = []
    used = {name}
    while new := [s for s in statements if s not in needed and used & _names_bound(s)]:
        needed += new
        used |= {node.id for s in new for node in ast.walk(s) if isinstance(node, ast.Name)}
    return "\n".join(ast.unparse(s) for s in statements if s in needed or not needed)


def _names_bound(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a file gives a meaning."""
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    nodes = list(ast.walk(statement))
    return (
        {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        | {(n.asname or n.name).partition(".")[0] for n in nodes if isinstance(n, ast.alias)}
        | {n.name for n in nodes if isinstance(n, DEFINITIONS)}
    )


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
