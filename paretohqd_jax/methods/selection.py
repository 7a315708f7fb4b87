"""The selection step: k rows per preference out of the Pareto pool of scored rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.rows import check_ranges, read_table, rewards_matrix, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import Selection, select
from paretohqd_jax.pareto.selection import default_pool_size
from paretohqd_jax.pipeline import Output

RANGE_RATIO_WARNING = 3.0  # beyond it one low outlier tilts every direction

logger = logging.getLogger(__name__)


def select_rows(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    k: int,
    min_pool_size: int,
    range_scope: str,
    normalize: bool,
    min_words: int,
    rule: str = "ray",
) -> None:
    """Selects k rows per preference among the training rows that have not collapsed.

    S1, S2 and S5 of docs/method.md. Leaves `preference_id, row_id, rank, distance`: `row_id` counts
    the rows of the scored table, `rank` is the non-dominated layer. The file's metadata hold the
    facts of the selection as JSON.
    """
    table = read_table(scored.path)
    candidates, rewards, result = selection_of(
        table, scored.path, objectives=objectives, preferences=preferences, k=k,
        min_pool_size=min_pool_size, range_scope=range_scope, normalize=normalize,
        min_words=min_words, rule=rule,
    )  # fmt: skip
    columns = selection_columns(result, candidates)
    facts = _selection_facts(table, rewards, columns["row_id"], result)
    default = default_pool_size(rule, k, len(preferences), len(candidates))
    _warn(facts, min_pool_size or default)
    write_table(path, pa.table(columns, metadata={"selection": json.dumps(facts)}))


def selection_columns(result: Selection, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """The columns `preference_id, row_id, rank, distance`, k rows for each preference in turn.

    Args:
      result: the selection, whose row ids count the candidates.
      candidates: int `[num_candidates]`, the table's rows that they are.
    """
    row_ids = np.asarray(result.row_ids)
    num_preferences, k = row_ids.shape
    return {
        "preference_id": np.repeat(np.arange(num_preferences, dtype=np.int32), k),
        "row_id": candidates[row_ids].ravel(),
        "rank": np.asarray(result.ranks, np.int32)[row_ids].ravel(),
        "distance": np.asarray(result.distances, np.float64).ravel(),
    }


def selection_of(
    table: pa.Table,
    source: str | Path,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    k: int,
    min_pool_size: int,
    range_scope: str,
    normalize: bool,
    min_words: int,
    rule: str = "ray",
) -> tuple[np.ndarray, np.ndarray, Selection]:
    """The rows that may be selected, their rewards, and the selection among them.

    Returns:
      int64 `[num_candidates]` rows of `table`, float64 `[num_candidates, num_objectives]`, and the
      selection, whose `row_ids` count the candidates.

    Raises:
      InputError: fewer than k rows may be selected, or an objective is the same in all of them.
    """
    candidates = np.flatnonzero(is_candidate(table, min_words))
    if candidates.size < k:
        raise InputError(
            f"{source}: {candidates.size} rows to select from, fewer than k={k}: of "
            f"{table.num_rows} rows the others are held out, have collapsed, or have fewer than "
            f"{min_words} words (config.select.min_words); lower config.select.k, or raise "
            "config.generate.num_prompts or the number of training steps"
        )
    rewards = rewards_matrix(table, objectives, source)[candidates]
    check_ranges(rewards, objectives, source)
    result = select(
        rewards, np.array(preferences), k, min(min_pool_size, candidates.size),
        range_scope=range_scope, normalize=normalize, rule=rule,
    )  # fmt: skip
    return candidates, rewards, result


def is_candidate(table: pa.Table, min_words: int = 0) -> np.ndarray:
    """Rows that may be trained on: long enough, not held out, not collapsed; bool `[num_rows]`."""
    words = [len(response.split()) for response in table["response"].to_pylist()]
    keep = np.array(words) >= min_words
    if "split" in table.column_names:
        keep &= pc.equal(table["split"], "train").to_numpy()
    if "collapsed" in table.column_names:
        keep &= pc.equal(table["collapsed"], "").to_numpy()
    return keep


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
        logger.warning("all rows are pooled: fewer than min_pool_size=%d", min_pool_size)
    if max(facts["range_ratio"]) > RANGE_RATIO_WARNING:
        logger.warning(
            "the data's reward range is %.1f times the pool's: low outliers may tilt the "
            "directions; consider config.select.range_scope='pareto'",
            max(facts["range_ratio"]),
        )
