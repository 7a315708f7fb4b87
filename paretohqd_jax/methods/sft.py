"""Supervised fine-tuning of one model, blind to the rewards: what other methods are compared with.

The model sees as many batches as one of ParetoHqD's in both stages, of random training rows or of
all of them.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import Policy
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.scoring import score_rows
from paretohqd_jax.steps.selection import draw_rows
from paretohqd_jax.steps.task import check_alignment, open_task
from paretohqd_jax.steps.training import fine_tune

STEPS = ("score", "draw", "sft", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "supervised fine-tuning")
    scored = score_rows(task)
    drawn = draw_rows(task, "draw", "sft", scored)
    trained = fine_tune(task, "sft", ["sft"], scored, drawn, config.train.num_steps)
    family = [Policy("sft", adapters=("sft/sft",), weights=(1.0,))]
    return leave(task, scored, {"sft": family}, [trained], selections=[drawn])


check = check_alignment
