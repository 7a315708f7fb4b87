"""DPO (Rafailov et al., arXiv 2305.18290): one model for each objective alone.

Each is trained on the pairs that its objective decides, to find the better response likelier than
the base model does, and the worse one less likely. They are the corners of every front, and what
soups, decoding and MODPO start from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import one_adapter_each
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import single_objective_models
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = ("score", "pairs", "reference_log_probs", "dpo", *LAST_STEPS)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "DPO, one model per objective (arXiv 2305.18290)")
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    models = single_objective_models(task, pairs, reference)
    family = one_adapter_each("dpo", np.eye(len(task.objectives)))
    return leave(task, rows, {"dpo": family}, [models], pairs=pairs)


check = check_alignment
