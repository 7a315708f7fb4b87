"""Supervised fine-tuning of one model, blind to the rewards: what ParetoHqD is compared with.

The model sees as many batches as one of ParetoHqD's in both stages, of random training rows or of
all of them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.methods import alignment
from paretohqd_jax.methods.base import step_seed
from paretohqd_jax.methods.selection import is_candidate
from paretohqd_jax.pipeline import Output, Run

STEPS = ("score", "draw", "sft", "respond", "judge", "reference", "evaluate", "export")
RESULT = ""  # the points are a file, no folder with a report

logger = logging.getLogger(__name__)


def align(config: ConfigDict, run: Run) -> Output:
    """Runs the method over the run directory and returns its points; finished steps are skipped."""
    num_objectives = len(config.rewards.models)
    no_preference = np.full((1, num_objectives), 1 / num_objectives)
    base = alignment.base_model(config)
    scored = alignment.score_rows(config, run, base)
    drawn = run.step(
        "draw", "selection/sft.parquet", draw_rows, scored,
        rule=config.draw.rule, k=config.draw.k, min_words=config.draw.min_words,
        seed=step_seed(config.seed, "draw"),
    )  # fmt: skip
    trained = run.step(
        "sft", "sft", alignment.tuner(config, run, base), scored, drawn,
        num_steps=config.train.num_steps,
        seed=step_seed(config.seed, "sft"), **alignment.training_options(config, no_preference),
        also=alignment.network_options(config, base), all_processes=True,
    )  # fmt: skip
    alignment.export(config, run, base, trained, no_preference)
    *_, points = alignment.measure(config, run, base, scored, {"sft": trained}, no_preference)
    return points


def check(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    alignment.check_alignment(config)


def draw_rows(
    path: Path, scratch: Path, scored: Output, *, rule: str, k: int, min_words: int, seed: int
) -> None:
    """The rows to train on, by `row_id`: k random ones of those that may be, or all ("all")."""
    rows = np.flatnonzero(is_candidate(read_table(scored.path), min_words))
    if rule == "random":
        if rows.size < k:
            raise InputError(f"{scored.path}: {rows.size} rows to draw from; lower config.draw.k")
        rows = np.random.default_rng(seed).permutation(rows)[:k]
    logger.info("%d rows to train on", rows.size)
    write_table(path, pa.table({"row_id": rows}))
