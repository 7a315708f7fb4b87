"""The objectives of a run, and its preferences between them, as options write them."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from paretohqd_jax.data.rows import OUR_COLUMNS
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import check_preferences, preference_grid

BETWEEN_NAMES = re.compile(r",(?![^(]*\))")  # not between the arguments of a function


def names_in(text: str) -> tuple[Any, ...]:
    """The values in a text of the command line: `a,b`, `a` and `('a','b')` all do."""
    with contextlib.suppress(SyntaxError, ValueError):
        value = ast.literal_eval(text)
        if isinstance(value, (tuple, list)):
            return tuple(value)
        text = value if isinstance(value, str) else text
    return tuple(part.strip() for part in BETWEEN_NAMES.split(text) if part.strip())


def split_model(model: str) -> tuple[str, str]:
    """The column of an entry of `config.rewards.models` and its scorer.

    They are written "COLUMN=SCORER". A scorer alone names its column too; of NAME@CHECKPOINT the
    name does, and of a directory its last part.
    """
    column, equals, scorer = model.partition("=")
    if equals:
        return column, scorer
    named = model.partition("@")[0]
    return (named if ":" in named else named.rstrip("/").rpartition("/")[2]), model


def objective_names(models: Sequence[str]) -> list[str]:
    """The columns of the entries of `config.rewards.models`.

    Raises InputError for one that is nothing or in OUR_COLUMNS.
    """
    names = [split_model(model)[0] for model in models]
    for model, name in zip(models, names, strict=True):
        if not name or name in OUR_COLUMNS:
            raise InputError(
                f"reward model {model!r}: its column cannot be called {name!r}; "
                "choose a name and write it as COLUMN=NAME"
            )
    return names


def parse_preferences(text: str, num_objectives: int) -> np.ndarray:
    """Preferences on the simplex, float64 `[num_preferences, num_objectives]`.

    Args:
      text: a number of grid points such as "11", the name of a list, or the preferences
        themselves, "0.8,0.2;0.5,0.5".
      num_objectives: M, the length of each preference.

    Raises:
      InputError: the text is none of these, or a preference is off the simplex.
    """
    if "," not in text:
        return np.asarray(preference_grid(int(text) if text.isdecimal() else text, num_objectives))
    try:
        rows = [[float(weight) for weight in row.split(",")] for row in text.split(";")]
    except ValueError as error:
        raise InputError(
            f"preferences {text!r}: {error}; write them like '0.8,0.2;0.5,0.5'"
        ) from error
    if any(len(row) != num_objectives for row in rows):
        raise InputError(f"preferences {text!r}: give {num_objectives} weights, one per objective")
    return np.asarray(check_preferences(np.array(rows), num_objectives))
