"""Smooth Tchebycheff (Lin et al., arXiv 2402.19078) over the DPO losses of the objectives.

In place of the weighted sum of losses, their smooth maximum is minimised: the objective whose
weighted loss is largest counts most, so that none is bought by the neglect of another.
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

STEPS = ("score", "pairs", "reference_log_probs", "smooth_tchebycheff", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "smooth Tchebycheff over DPO losses (arXiv 2402.19078)")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    trained = fine_tune_on_pairs(
        task, "smooth_tchebycheff", task.preferences, pairs, reference,
        combination="smooth_tchebycheff", temperature=config.smooth_tchebycheff.temperature,
    )  # fmt: skip
    family = one_adapter_each("smooth_tchebycheff", task.preferences)
    return leave(task, rows, {"smooth_tchebycheff": family}, [trained], pairs=pairs)


check = check_alignment
