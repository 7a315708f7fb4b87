"""Which rows of a table may be trained on: those of the training split that pass the gates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.gates import count_failures, failures, in_words, parse_gates
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.task import Task

logger = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Rows that may be trained on.

    row_ids int64 `[num_candidates]`, rows of the table; gates, what `count_failures` returns of the
    rows that are neither held out nor collapsed; num_rows, how many these are.
    """

    row_ids: np.ndarray
    gates: dict[str, dict[str, int]]
    num_rows: int


def gates_of(task: Task) -> list[str]:
    """The gates of a run as texts, each by its column."""
    return [str(gate) for gate in run_gates(task.config).gates]


def candidates_of(table: pa.Table, source: str | Path, gates: Sequence[str]) -> Candidates:
    """The rows that may be trained on and pass all gates.

    A gate for a column of the data's own says nothing of generated rows, which have none.

    Raises:
      InputError: a gate's column holds something other than finite numbers.
    """
    fit = is_candidate(table)
    known = [gate for gate in parse_gates(gates) if gate.name in table.column_names]
    failed = failures(table, known, source)
    row_ids = np.flatnonzero(fit & ~failed.any(axis=0))
    return Candidates(row_ids, count_failures(known, failed[:, fit]), int(fit.sum()))


def log_gates(gates: Sequence[str], candidates: Candidates) -> None:
    """Says of each gate how many rows fail it."""
    for gate in gates:
        if gate not in candidates.gates:
            logger.info("gate %s: these rows have no such column, so all pass", gate)
            continue
        count = candidates.gates[gate]
        logger.info(
            "gate %s: %d of %d rows fail it, %d of them no other gate",
            gate, count["failed"], candidates.num_rows, count["failed_alone"],
        )  # fmt: skip


def left_out(candidates: Candidates, table: pa.Table) -> str:
    """Where the rows of a table are that are no candidates."""
    unfit = f"{table.num_rows - candidates.num_rows} are held out or have collapsed"
    if not candidates.gates:
        return unfit
    return f"{unfit}, and of the others the gate {in_words(candidates.gates)}"


def remedy(candidates: Candidates) -> str:
    """What to do first where too few rows are left."""
    took = any(count["failed"] for count in candidates.gates.values())
    return "loosen the gates, " if took else ""


def gate_facts(candidates: Candidates) -> dict[str, Any]:
    """What the metadata of a selection tell of its gates."""
    return {"gates": candidates.gates, "num_before_gates": candidates.num_rows}


def is_candidate(table: pa.Table) -> np.ndarray:
    """Rows that may be trained on: not held out, not collapsed; bool `[num_rows]`."""
    keep = np.ones(table.num_rows, bool)
    if "split" in table.column_names:
        keep &= pc.equal(table["split"], "train").to_numpy()
    if "collapsed" in table.column_names:
        keep &= pc.equal(table["collapsed"], "").to_numpy()
    return keep
