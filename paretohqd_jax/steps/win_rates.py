"""The step that says how often each objective prefers a response to others of its prompt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.pairs import training_pairs
from paretohqd_jax.steps.task import Task

logger = logging.getLogger(__name__)
FILE = "win_rates.parquet"


def win_rates(task: Task, scored: Output, temperature: float) -> Output:
    """By the rewards of scored rows: against every other response to the same prompt.

    Leaves the rows that may be trained on, of prompts with two responses or more, their win rates
    in the columns of the objectives. `temperature` as of `probabilities`.
    """
    return task.run.step(
        "win_rates", FILE, write_win_rates, scored, objectives=task.objectives,
        temperature=temperature,
    )  # fmt: skip


def labelled_win_rates(task: Task, pairs: Output) -> Output:
    """By the labels of pairs: a row for each response, whose win rates are those of its pairs.

    Where an objective does not decide a pair, either response wins half of it.
    """
    return task.run.step(
        "win_rates", FILE, write_labelled_win_rates, pairs, objectives=task.objectives
    )


def write_win_rates(
    path: Path, scratch: Path, scored: Output, *, objectives: Sequence[str], temperature: float
) -> None:
    """Leaves `prompt`, `response` and the objectives' win rates."""
    table = read_table(scored.path)
    table = table.filter(pa.array(is_candidate(table)))
    rewards = rewards_matrix(table, objectives, scored.path).astype(np.float64)
    check_ranges(rewards, objectives, scored.path)
    numbers = _numbers(table["prompt"])
    order = np.argsort(numbers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    compared = [rows for rows in groups if len(rows) > 1]
    if not compared:
        raise InputError(
            f"{scored.path}: no prompt to train on has two responses, so none can be preferred to "
            "another; give more responses to each prompt"
        )
    if len(compared) < len(groups):
        logger.info(
            "%d of %d prompts have one response, which nothing is compared with, and are left out",
            len(groups) - len(compared), len(groups),
        )  # fmt: skip
    scale = temperature * rewards.std(axis=0)
    wins = np.empty_like(rewards)
    for rows in compared:
        every = probabilities(rewards[rows][:, None] - rewards[rows][None], scale)
        wins[rows] = (every.sum(axis=1) - 0.5) / (len(rows) - 1)  # without itself
    kept = np.sort(np.concatenate(compared))
    rows = table.select(["prompt", "response"]).take(kept)
    _write(path, rows, wins[kept], objectives, scored.path)


def probabilities(differences: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """How often the first of two responses is preferred, same shape.

    sigma(r - r') of rewards in units of `scale`, `[num_objectives]`; where that is 0 the indicator,
    which gives half to a tie.
    """
    smooth = (1 + np.tanh(differences / np.where(scale > 0, 2 * scale, 1))) / 2
    return np.where(scale > 0, smooth, (1 + np.sign(differences)) / 2)


def write_labelled_win_rates(
    path: Path, scratch: Path, pairs: Output, *, objectives: Sequence[str]
) -> None:
    """Leaves `prompt`, `response` and the objectives' win rates."""
    table = training_pairs(pairs)
    labels = np.stack([table[name].to_numpy() for name in objectives], axis=1)
    wins = (1 + np.stack([labels, -labels], axis=1).reshape(-1, len(objectives))) / 2
    rows = rows_of(table).select(["prompt", "response"])
    texts = _numbers(rows["prompt"]) * rows.num_rows + _numbers(rows["response"])
    _, first, response = np.unique(texts, return_index=True, return_inverse=True)
    total = np.zeros((len(first), len(objectives)))
    np.add.at(total, response, wins)
    order = np.argsort(first)
    means = total / np.bincount(response)[:, None]
    _write(path, rows.take(first[order]), means[order], objectives, pairs.path)


def _numbers(texts: pa.ChunkedArray) -> np.ndarray:
    """A number for each different text, int64."""
    return texts.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _write(
    path: Path, rows: pa.Table, wins: np.ndarray, objectives: Sequence[str], source: Path
) -> None:
    for column in np.flatnonzero(np.ptp(wins, axis=0) == 0):
        raise InputError(
            f"{source}: objective {objectives[column]!r} prefers no response to another of its "
            "prompt; leave it out, mend its scorer or give other responses"
        )
    for name, column in zip(objectives, wins.T, strict=True):
        rows = rows.append_column(name, pa.array(column.astype(np.float32)))
        logger.info(
            "%s: win rates of %d rows from %.3f to %.3f, standard deviation %.3f",
            name, rows.num_rows, column.min(), column.max(), column.std(),
        )  # fmt: skip
    write_table(path, rows)
