"""MOD (Shi et al., arXiv 2406.18853): DPO models of one objective each, mixed while they answer.

The next token is drawn from the product of the models' distributions, each to the power of its
objective's weight: the optimum of the weighted rewards under a reverse KL divergence. Nothing is
trained beyond the models of `dpo`, for any number of preferences.
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
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = ("score", "pairs", "reference_log_probs", "dpo", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "MOD, decoding by several DPO models (arXiv 2406.18853)")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    models = single_objective_models(task, pairs, reference)
    corners = one_adapter_each("dpo", np.eye(len(task.objectives)))
    family = mixtures(corners, task.preferences, "logits", **config.mod)
    return leave(task, rows, {"mod": family}, [models], pairs=pairs)


check = check_alignment
