"""DPO with loss weighting: one model per preference, on the weighted losses of all objectives.

Each objective says by its labels which response of a pair is better, so in a conflict the losses of
one margin pull in two directions. The optimum mixes the objectives' probabilities of winning, not
their rewards. The baseline of SIPO (arXiv 2502.14354) and others.
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

STEPS = ("score", "pairs", "reference_log_probs", "dpo_lw", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "DPO with loss weighting")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    trained = fine_tune_on_pairs(task, "dpo_lw", task.preferences, pairs, reference)
    family = one_adapter_each("dpo_lw", task.preferences)
    return leave(task, rows, {"dpo_lw": family}, [trained], pairs=pairs)


check = check_alignment
