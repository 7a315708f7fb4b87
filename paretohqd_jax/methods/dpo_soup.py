"""DPO soups: DPO models of one objective each, merged by their weights (arXiv 2306.04488).

A preference's model is the weighted sum of the updates that the objectives' models have learnt.
Nothing is trained beyond the models of `dpo`, for any number of preferences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import mixtures, one_adapter_each
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import single_objective_models
from paretohqd_jax.steps.soups import average_factors
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = ("score", "pairs", "reference_log_probs", "dpo", "dpo_soup", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "soups of DPO models (arXiv 2306.04488)")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    models = single_objective_models(task, pairs, reference)
    if config.dpo_soup.average == "factors":
        soups = average_factors(task, "dpo_soup", task.preferences, models)
        family = one_adapter_each("dpo_soup", task.preferences)
        return leave(task, rows, {"dpo_soup": family}, [models, soups], pairs=pairs)
    corners = one_adapter_each("dpo", np.eye(len(task.objectives)))
    family = mixtures(corners, task.preferences)
    return leave(task, rows, {"dpo_soup": family}, [models], pairs=pairs)


check = check_alignment
