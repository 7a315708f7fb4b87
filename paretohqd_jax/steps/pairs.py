"""The step that gives preference pairs: those of the data, or made of scored rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.pairs import (
    compare_rows,
    count_labels,
    label_matrix,
    limit_per_prompt,
    sample_conflict,
)
from paretohqd_jax.data.reward_columns import check_ranges, rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.sources import load_pairs
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output, source_digest
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.rows import fitting_rows, reading_options, with_split
from paretohqd_jax.steps.scoring import score_rows
from paretohqd_jax.steps.task import Task, longest_response, prompt_options

HELD_OUT_PAIRS = 64  # that training tells its loss on

logger = logging.getLogger(__name__)


class PreferenceData(NamedTuple):
    """What a method that learns from pairs starts from.

    rows, the data, whose prompts are held out or trained on; pairs of them, with a label per
    objective. Where the data are pairs with labels, these are both.
    """

    rows: Output
    pairs: Output


def preference_data(task: Task) -> PreferenceData:
    """Reads the data as `config.pairs` says, holds out the test prompts and labels pairs."""
    config = task.config
    how = {
        "objectives": task.objectives, "per_prompt": config.pairs.per_prompt,
        "conflict": config.pairs.conflict, "seed": config.seed,
    }  # fmt: skip
    if config.pairs.labels == "rewards":
        rows = score_rows(task)
        pairs = task.run.step(
            "pairs", "pairs.parquet", make_pairs, rows, margin=config.pairs.margin, **how
        )
        return PreferenceData(rows, pairs)
    pairs = task.run.step(
        "pairs", "pairs.parquet",
        partial(read_pairs, base=task.base, max_new_tokens=longest_response(config)),
        data=reading_options(config), num_test_prompts=config.data.num_test_prompts,
        min_tokens=config.data.min_tokens, max_tokens=config.data.max_tokens, **how,
        also=prompt_options(task.base) | {"data_digest": source_digest(config.data.source)},
    )  # fmt: skip
    return PreferenceData(pairs, pairs)


def make_pairs(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    objectives: Sequence[str],
    margin: float,
    per_prompt: int,
    conflict: float,
    seed: int,
) -> None:
    """Makes pairs of the scored rows: of each objective the larger reward is the better one.

    `margin` is in standard deviations of the training rows' rewards. Columns are those of
    `compare_rows`; the pairs that may be trained on have the split "train".
    """
    table = read_table(scored.path)
    rewards = rewards_matrix(table, objectives, scored.path)[is_candidate(table)]
    check_ranges(rewards, objectives, scored.path)
    margins = (margin * rewards.std(axis=0)).tolist()
    pairs = compare_rows(table, objectives, margins, scored.path)
    _write(path, pairs, scored.path, objectives, per_prompt, conflict, seed)


def read_pairs(
    path: Path,
    scratch: Path,
    *,
    base: BaseModel,
    data: Mapping[str, str],
    num_test_prompts: int,
    min_tokens: int,
    max_tokens: int,
    max_new_tokens: int,
    objectives: Sequence[str],
    per_prompt: int,
    conflict: float,
    seed: int,
) -> None:
    """Reads pairs that bring labels along, leaves out those of unfit length and holds out prompts.

    `data` are the arguments of `load_pairs`.
    """
    source = data["source"]
    loaded = load_pairs(**data)
    columns = ["prompt", "chosen", "rejected", "source_row"]
    labels = label_matrix(loaded, objectives, source)
    table = loaded.select(columns)
    for name, column in zip(objectives, labels.T, strict=True):
        table = table.append_column(name, pa.array(column))
    table = fitting_rows(table, base, source, min_tokens, max_tokens, max_new_tokens)
    pairs = with_split(table, num_test_prompts)
    _write(path, pairs, source, objectives, per_prompt, conflict, seed)


def _write(
    path: Path,
    pairs: pa.Table,
    source: str | Path,
    objectives: Sequence[str],
    per_prompt: int,
    conflict: float,
    seed: int,
) -> None:
    """Leaves the pairs, some of the training split alone; their counts are in the metadata."""
    seed = step_seed(seed, "pairs")
    in_training = pc.equal(pairs["split"], "train")
    train, held_out = pairs.filter(in_training), pairs.filter(pc.invert(in_training))
    if not train.num_rows:
        raise InputError(
            f"{source}: no prompt to train on has two responses that differ; give more rows, or "
            "lower config.pairs.margin or config.data.num_test_prompts"
        )
    train = limit_per_prompt(train, per_prompt, seed)
    if conflict >= 0:
        try:
            train = sample_conflict(train, conflict, seed, objectives)
        except InputError as error:
            raise InputError(f"{source}: config.pairs.conflict: {error}") from error
    labels = np.stack([train[name].to_numpy() for name in objectives], axis=1)
    counts = count_labels(labels, objectives)
    for name, count in counts.items():
        logger.info(
            "%s: %d of %d training pairs are decided, %d tie, %d of the decided are in conflict "
            "with another objective",
            name, count["pairs"], train.num_rows, count["ties"], count["conflicts"],
        )  # fmt: skip
        if not count["pairs"]:
            raise InputError(
                f"{source}: objective {name!r} decides none of {train.num_rows} training pairs; "
                "give pairs that it decides, lower config.pairs.margin or leave the objective out"
            )
    facts = {"num_pairs": train.num_rows, "objectives": counts}
    table = pa.concat_tables([train, held_out])
    write_table(path, table.replace_schema_metadata({"pairs": json.dumps(facts)}))


def training_pairs(pairs: Output) -> pa.Table:
    """The pairs that may be trained on, in their order."""
    table = read_table(pairs.path)
    return table.filter(pc.equal(table["split"], "train"))


def pairs_in_use(pairs: Output) -> tuple[pa.Table, int]:
    """The training pairs, then `HELD_OUT_PAIRS` of held-out prompts; how many the former are.

    The latter are spread over the prompts; there may be fewer.
    """
    table, train = read_table(pairs.path), training_pairs(pairs)
    held_out = table.filter(pc.not_equal(table["split"], "train"))
    count = min(HELD_OUT_PAIRS, held_out.num_rows)
    spread = np.linspace(0, held_out.num_rows, count, endpoint=False).astype(np.int64)
    return pa.concat_tables([train, held_out.take(spread)]), train.num_rows
