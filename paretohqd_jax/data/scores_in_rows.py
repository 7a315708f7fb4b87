"""Rows whose prompts hold the standardised rewards of their responses, for Rewards-in-Context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.conversations import in_words
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.scores_in_prompt import DECIMALS, words_with


def statistics_of(table: pa.Table, objectives: Sequence[str], source: Path) -> np.ndarray:
    """Mean and standard deviation of rewards that may be trained on, `[num_objectives, 2]`.

    Those that are stored with scored rows, or else those of all rows of the table.

    Raises:
      InputError: an objective is the same in all rows.
    """
    stored = json.loads((table.schema.metadata or {}).get(b"rewards", "{}"))
    if stored:
        return np.array([[stored[name]["mean"], stored[name]["std"]] for name in objectives])
    rewards = rewards_matrix(table, objectives, source)
    check_ranges(rewards, objectives, source)
    return np.stack([rewards.mean(axis=0), rewards.std(axis=0)], axis=1)


def standardised(
    table: pa.Table,
    objectives: Sequence[str],
    source: Path,
    statistics: np.ndarray,
    rounded: bool = False,
) -> np.ndarray:
    """The rewards of rows in standard deviations from the mean, `[num_rows, num_objectives]`.

    As of `statistics_of`; `rounded` to one decimal first, as RiC's code has them.
    """
    rewards = rewards_matrix(table, objectives, source)
    rewards = np.round(rewards, DECIMALS) if rounded else rewards
    return (rewards - statistics[:, 0]) / statistics[:, 1]


def with_scores_in_prompts(
    table: pa.Table, scores: np.ndarray, objectives: Sequence[str], without_end: bool = False
) -> pa.Table:
    """The table with scores `[num_rows, num_objectives]` in its prompts, and for its rewards.

    `question` is the prompt without. Where responses are learnt `without_end`, all are `truncated`.
    """
    questions = table["prompt"]
    prompts = [
        in_words(words_with(own), question)
        for own, question in zip(scores, questions.to_pylist(), strict=True)
    ]
    truncated = pa.array(np.full(table.num_rows, without_end))
    if "truncated" in table.column_names:
        truncated = pc.or_(table["truncated"], truncated)
    columns = {"prompt": pa.array(prompts), "question": questions, "truncated": truncated}
    columns |= {name: pa.array(own) for name, own in zip(objectives, scores.T, strict=True)}
    table = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table
