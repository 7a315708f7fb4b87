"""The steps of soups: rows for models of one objective each, and averages as others made them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.candidates import (
    candidates_of,
    gate_facts,
    gates_of,
    left_out,
    log_gates,
    remedy,
)
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters, save_adapters


def best_rows(task: Task, name: str, stage: str, scored: Output) -> Output:
    """The `config.select.k` training rows with the largest rewards of each objective in turn."""
    return task.run.step(
        name, f"selection/{stage}.parquet", write_best_rows, scored,
        objectives=task.objectives, k=task.config.select.k, gates=gates_of(task),
    )  # fmt: skip


def write_best_rows(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    objectives: Sequence[str],
    k: int,
    gates: Sequence[str],
) -> None:
    """Leaves `row_id`, k for each objective; of equals the first rows.

    Raises:
      InputError: fewer than k rows may be trained on, or an objective is the same in all of them.
    """
    table = read_table(scored.path)
    candidates = candidates_of(table, scored.path, gates)
    if candidates.row_ids.size < k:
        raise InputError(
            f"{scored.path}: {candidates.row_ids.size} rows to select from, fewer than k={k}: of "
            f"{table.num_rows} rows {left_out(candidates, table)}; {remedy(candidates)}lower "
            "config.select.k"
        )
    rewards = rewards_matrix(table, objectives, scored.path)[candidates.row_ids]
    check_ranges(rewards, objectives, scored.path)
    log_gates(gates, candidates)
    best = np.argsort(-rewards, axis=0, kind="stable")[:k].T
    facts = {"selection": json.dumps(gate_facts(candidates))}
    write_table(path, pa.table({"row_id": candidates.row_ids[best].ravel()}, metadata=facts))


def average_factors(
    task: Task, name: str, adapter_names: Sequence[str], weights: np.ndarray, stack: Output
) -> Output:
    """A stack of weighted averages of the factors `a` and `b` of another stack's adapters, apart.

    Their products are not the averages of the adapters' updates: for results of others that were
    made so. `weights` are `[num_averages, num_adapters]`, and each average has a name.
    """
    return task.run.step(
        name, name, partial(write_averages, base=task.base), stack, weights=weights.tolist(),
        adapter_names=list(adapter_names), also=task.network, all_processes=True,
    )  # fmt: skip


def write_averages(
    path: Path,
    scratch: Path,
    stack: Output,
    *,
    base: BaseModel,
    weights: Sequence[Sequence[float]],
    adapter_names: Sequence[str],
) -> None:
    """Leaves a checkpoint of the averages."""
    trained = load_adapters(stack.path, checkpoint_meta(base, stack.options["adapter_names"]))
    averages = averaged_factors(trained, np.array(weights))
    save_adapters(path, averages, checkpoint_meta(base, adapter_names))


def averaged_factors(stack: Any, weights: np.ndarray) -> Any:
    """Averages of a stack, `[num_averages, ...]`, by weights `[num_averages, num_adapters]`."""
    shares = weights.astype(np.float32)
    return jax.tree.map(lambda leaf: np.tensordot(shares, leaf, 1), stack)
