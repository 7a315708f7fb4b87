"""The gates of a run: which columns they ask for, and who gives these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from paretohqd_jax.config import objective_names, split_model
from paretohqd_jax.data.gates import Gate, parse_gates
from paretohqd_jax.data.rows import OUR_COLUMNS
from paretohqd_jax.errors import InputError
from paretohqd_jax.rewards.scoring import find_scorer


class RunGates(NamedTuple):
    """The gates of a run.

    gates, each by its column; scorers, entries like those of `config.rewards.models` that give
    columns besides the objectives; columns that the data have to bring along.
    """

    gates: list[Gate]
    scorers: list[str]
    columns: list[str]


def run_gates(config: ConfigDict) -> RunGates:
    """Those of `config.select.gates`, or where rows are drawn, of `config.draw.gates`."""
    group = next((name for name in ("select", "draw") if name in config), None)
    gates = config[group].gates if group else []
    return sort_gates(gates, config.rewards.models, f"config.{group}.gates")


def sort_gates(texts: Sequence[str], models: Sequence[str], option: str) -> RunGates:
    """The gates that are written in `texts`, and who gives their columns.

    A gate names an objective, or a scorer as an entry of `config.rewards.models` does, or else a
    column of the data.

    Args:
      texts: gates.
      models: entries of `config.rewards.models`.
      option: begins the messages.

    Raises:
      InputError: a gate cannot be read, or its column is another's already.
    """
    objectives = objective_names(models)
    parsed = parse_gates(texts, option)
    columns = [split_model(gate.name)[0] for gate in parsed]
    scorers: dict[str, str] = {}
    for gate, column in zip(parsed, columns, strict=True):
        scorer = split_model(gate.name)[1]
        if column in objectives and gate.name in (column, *models):
            continue
        if gate.name == column and find_scorer(scorer) is None:
            continue
        other = scorers.setdefault(column, gate.name)
        if column in (*objectives, *OUR_COLUMNS) or split_model(other)[1] != scorer:
            raise InputError(
                f"{option}: {str(gate)!r}: the column {column!r} is another's; write "
                f"COLUMN={scorer} with a name of its own"
            )
    brought = [name for name in dict.fromkeys(columns) if name not in (*objectives, *scorers)]
    for name in set(brought) & OUR_COLUMNS:
        raise InputError(f"{option}: {name!r} is no score; gates are for columns of scores")
    gates = [gate._replace(name=column) for gate, column in zip(parsed, columns, strict=True)]
    return RunGates(list(dict.fromkeys(gates)), list(scorers.values()), brought)
