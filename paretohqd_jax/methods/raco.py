"""RACO (arXiv 2602.02495): DPO of several objectives by conflict-averse gradients.

A step follows the weighted gradient of the objectives' losses, and turns towards the one that it
serves worst, by no more than that objective's weight asks for.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import one_adapter_each
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import fine_tune_on_pairs
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = ("score", "pairs", "reference_log_probs", "raco", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "RACO (arXiv 2602.02495)")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    trained = fine_tune_on_pairs(
        task, "raco", task.preferences, pairs, reference, combination="raco",
        conflict=config.raco.conflict,
    )  # fmt: skip
    family = one_adapter_each("raco", task.preferences)
    return leave(task, rows, {"raco": family}, [trained], pairs=pairs)


check = check_alignment
