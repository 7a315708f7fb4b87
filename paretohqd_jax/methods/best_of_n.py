"""Best of n: the base model samples, each preference keeps the best answer, and learns it.

Of n answers to a prompt the one with the largest weighted sum of standardised rewards is the
preference's. What best-of-n sampling would answer at n times the cost, the model learns by
supervised fine-tuning; it knows no front, and is a baseline for methods that do.
"""

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import BASE, one_adapter_each, preference_labels
from paretohqd_jax.steps.generation import generate
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.scoring import score_responses, score_rows
from paretohqd_jax.steps.selection import best_of_prompt
from paretohqd_jax.steps.task import check_alignment, open_task
from paretohqd_jax.steps.training import fine_tune

STEPS = ("score", "sample", "rescore", "select", "best_of_n", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "best of n, then supervised fine-tuning")
    labels = preference_labels(task.preferences)
    scored = score_rows(task)
    samples = generate(task, "sample", "samples.parquet", scored, [BASE] * config.best_of_n.n)
    rated = score_responses(task, "rescore", "generated.parquet", samples)
    best = best_of_prompt(task, "select", "best_of_n", rated)
    trained = fine_tune(task, "best_of_n", labels, rated, best, config.train.num_steps)
    family = one_adapter_each("best_of_n", task.preferences)
    return leave(task, scored, {"best_of_n": family}, [trained])


check = check_alignment
