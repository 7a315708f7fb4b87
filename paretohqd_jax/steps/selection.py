"""The selection step: k rows per preference out of the Pareto pool of scored rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import SELECTION_COLUMNS, read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import Selection, select
from paretohqd_jax.pareto.selection import default_pool_size
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import step_seed
from paretohqd_jax.steps.candidates import (
    Candidates,
    candidates_of,
    gate_facts,
    gates_of,
    is_candidate,
    left_out,
    log_gates,
    remedy,
)
from paretohqd_jax.steps.task import Task

RANGE_RATIO_WARNING = 3.0  # beyond it one low outlier tilts every direction
LAYER_WARNING = 0.1  # of the rows: a first layer of more holds poor ones

logger = logging.getLogger(__name__)


def select_rows(task: Task, name: str, stage: str, scored: Output, share: float = 1.0) -> Output:
    """The rows that each preference's model is trained on, out of the Pareto pool of scored rows.

    Args:
      task: its `config.select` says how.
      name: of the step.
      stage: that trains on them.
      scored: rows with their rewards.
      share: of `config.select.k` and of `min_pool_size` that is taken.
    """
    options = task.config.select.to_dict() | {"gates": gates_of(task)}
    sizes = {size: int(options.pop(size) * share) for size in ("k", "min_pool_size")}
    return task.run.step(
        name, f"selection/{stage}.parquet", write_selection, scored,
        objectives=task.objectives, preferences=task.preferences.tolist(), **sizes, **options,
    )  # fmt: skip


def write_selection(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    k: int,
    min_pool_size: int,
    gates: Sequence[str],
    **how: Any,
) -> None:
    """Selects k rows per preference among the training rows that have not collapsed.

    `how` are the other options of `pareto.select`. S1, S2 and S5 of docs/method.md. Leaves
    `preference_id, row_id, rank, distance`: `row_id` counts the rows of the scored table, `rank` is
    the non-dominated layer. The file's metadata hold the facts of the selection as JSON.
    """
    table = read_table(scored.path)
    candidates, rewards, result = selection_of(
        table, scored.path, objectives=objectives, preferences=preferences, k=k,
        min_pool_size=min_pool_size, gates=gates, **how,
    )  # fmt: skip
    columns = selection_columns(result, candidates.row_ids)
    facts = gate_facts(candidates) | _selection_facts(table, rewards, columns["row_id"], result)
    log_gates(gates, candidates)
    default = default_pool_size(how["rule"], k, len(preferences), len(rewards))
    _warn(facts, min_pool_size or default)
    if advice := pool_advice(result, how["rule"], min_pool_size or default):
        logger.warning(advice)
    write_table(path, pa.table(columns, metadata={"selection": json.dumps(facts)}))


def selection_columns(result: Selection, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """The columns `preference_id, row_id, rank, distance`, k rows for each preference in turn.

    Args:
      result: the selection, whose row ids count the candidates.
      candidates: int `[num_candidates]`, the table's rows that they are.
    """
    row_ids = np.asarray(result.row_ids)
    num_preferences, k = row_ids.shape
    columns = (
        np.repeat(np.arange(num_preferences, dtype=np.int32), k),
        candidates[row_ids].ravel(),
        np.asarray(result.ranks, np.int32)[row_ids].ravel(),
        np.asarray(result.distances, np.float64).ravel(),
    )
    return dict(zip(SELECTION_COLUMNS, columns, strict=True))


def selection_of(
    table: pa.Table,
    source: str | Path,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    k: int,
    min_pool_size: int,
    gates: Sequence[str],
    **how: Any,
) -> tuple[Candidates, np.ndarray, Selection]:
    """The rows that may be selected, their rewards, and the selection among them.

    Returns:
      The candidates, their rewards float64 `[num_candidates, num_objectives]`, and the selection,
      whose `row_ids` count the candidates.

    Raises:
      InputError: fewer than k rows may be selected, or an objective is the same in all of them.
    """
    candidates = candidates_of(table, source, gates)
    num_candidates = candidates.row_ids.size
    if num_candidates < k:
        raise InputError(
            f"{source}: {num_candidates} rows to select from, fewer than k={k}: of "
            f"{table.num_rows} rows {left_out(candidates, table)}; {remedy(candidates)}lower "
            "config.select.k, or raise config.generate.num_prompts or the number of training steps"
        )
    rewards = rewards_matrix(table, objectives, source)[candidates.row_ids]
    check_ranges(rewards, objectives, source)
    result = select(rewards, np.array(preferences), k, min(min_pool_size, num_candidates), **how)
    return candidates, rewards, result


def pool_advice(result: Selection, rule: str, min_pool_size: int) -> str:
    """What to do where layers do not make a pool, as with many objectives; "" where they do.

    Only the ray needs one: by itself it does not see how far from the ideal point a row lies.

    Args:
      result: the selection.
      rule: that made it.
      min_pool_size: the pool that was wanted.
    """
    first_layer, num_rows = int(np.sum(np.asarray(result.ranks) == 0)), len(result.ranks)
    if rule != "ray" or first_layer <= max(min_pool_size, LAYER_WARNING * num_rows):
        return ""
    return (
        f"the first non-dominated layer alone holds {first_layer} of {num_rows} rows, more than "
        f"the pool of {min_pool_size} that is wanted: poor rows are in it, and the ray does not "
        "see that they are; use the rule chebyshev, which needs no pool"
    )


def best_of_prompt(task: Task, name: str, stage: str, scored: Output) -> Output:
    """The best of the responses to each prompt, for each preference: the largest weighted sum.

    Rewards are standardised over all the responses first, so that none weighs by its scale.
    """
    return task.run.step(
        name, f"selection/{stage}.parquet", write_best_of_prompt, scored,
        objectives=task.objectives, preferences=task.preferences.tolist(),
    )  # fmt: skip


def write_best_of_prompt(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
) -> None:
    """Leaves `preference_id, row_id`, one row of each prompt for each preference in turn.

    Of equals the first row is taken. Prompts whose responses have all collapsed are left out.
    """
    table = read_table(scored.path)
    rows = np.flatnonzero(is_candidate(table))
    if rows.size == 0:
        raise InputError(f"{scored.path}: all responses have collapsed; sample more cautiously")
    rewards = rewards_matrix(table, objectives, scored.path)[rows]
    check_ranges(rewards, objectives, scored.path)
    sums = (rewards - rewards.mean(axis=0)) / rewards.std(axis=0) @ np.array(preferences).T
    prompt_ids = table["prompt"].combine_chunks().dictionary_encode().indices.to_numpy()[rows]
    best = []
    for column in sums.T:
        order = np.lexsort((rows, -np.round(column, 9), prompt_ids))
        first = np.r_[True, np.diff(prompt_ids[order]) > 0]
        best.append(np.sort(rows[order[first]]))
    preference_ids = np.repeat(np.arange(len(best), dtype=np.int32), len(best[0]))
    logger.info("the best responses to %d prompts for %d preferences", len(best[0]), len(best))
    write_table(path, pa.table({"preference_id": preference_ids, "row_id": np.concatenate(best)}))


def draw_rows(task: Task, name: str, stage: str, scored: Output) -> Output:
    """Training rows without regard to their rewards, by `config.draw.rule`.

    "random" draws `config.draw.k` of the rows that may be trained on, "all" takes them all.
    """
    draw = task.config.draw
    return task.run.step(
        name, f"selection/{stage}.parquet", partial(write_drawn_rows, name=name), scored,
        rule=draw.rule, k=draw.k, gates=gates_of(task), seed=task.config.seed,
    )  # fmt: skip


def write_drawn_rows(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    name: str,
    rule: str,
    k: int,
    gates: Sequence[str],
    seed: int,
) -> None:
    """Leaves `row_id`: k random rows of those that may be trained on, or all ("all")."""
    table = read_table(scored.path)
    candidates = candidates_of(table, scored.path, gates)
    rows = candidates.row_ids
    wanted = k if rule == "random" else 1
    if rows.size < wanted:
        raise InputError(
            f"{scored.path}: {rows.size} rows to draw from, fewer than {wanted}: of "
            f"{table.num_rows} rows {left_out(candidates, table)}; {remedy(candidates)}lower "
            "config.draw.k or config.data.num_test_prompts"
        )
    if rule == "random":
        rows = np.random.default_rng(step_seed(seed, name)).permutation(rows)[:k]
    log_gates(gates, candidates)
    logger.info("%d rows to train on", rows.size)
    facts = gate_facts(candidates)
    write_table(path, pa.table({"row_id": rows}, metadata={"selection": json.dumps(facts)}))


def _selection_facts(
    table: pa.Table, rewards: np.ndarray, row_ids: np.ndarray, result: Selection
) -> dict[str, Any]:
    ranks = np.asarray(result.ranks)
    pool = rewards[ranks >= 0]
    prompts = table["prompt"].take(np.unique(row_ids))
    with np.errstate(divide="ignore"):
        range_ratio = np.ptp(rewards, axis=0) / np.ptp(pool, axis=0)
    return {
        "low": np.asarray(result.low, np.float64).tolist(),
        "high": np.asarray(result.high, np.float64).tolist(),
        "num_candidates": len(rewards),
        "pool_size": len(pool),
        "num_layers": int(ranks.max()) + 1,
        "unique_rows": int(np.unique(row_ids).size),
        "unique_prompts": len(pc.unique(prompts)),
        "range_ratio": np.where(np.isfinite(range_ratio), range_ratio, -1.0).tolist(),
    }


def _warn(facts: dict[str, Any], min_pool_size: int) -> None:
    logger.info(
        "pool of %s%d rows in %d layers; %d different rows selected from %d prompts",
        "all " if facts["pool_size"] == facts["num_candidates"] else "",
        facts["pool_size"], facts["num_layers"], facts["unique_rows"], facts["unique_prompts"],
    )  # fmt: skip
    if facts["pool_size"] < min_pool_size:
        logger.warning(
            "all rows are pooled: fewer than config.select.min_pool_size=%d", min_pool_size
        )
    if max(facts["range_ratio"]) > RANGE_RATIO_WARNING:
        logger.warning(
            "the data's reward range is %.1f times the pool's: low outliers may tilt the "
            "directions; consider config.select.range_scope='pareto'",
            max(facts["range_ratio"]),
        )
