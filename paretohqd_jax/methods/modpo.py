"""MODPO (Zhou et al., arXiv 2310.03708): DPO on one objective's pairs, the others as margins.

What the other objectives pay for is taken off a pair's margin, so that the model learns the rest
from the labels of the first. Its optimum is that of the weighted sum of rewards. Preferences on the
corners are served by the DPO models themselves.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config.modpo import is_trained
from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import mixtures, one_adapter_each
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.margins import implicit_margins, rewarded_margins
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import fine_tune_beyond, single_objective_models
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = (
    "score", "pairs", "reference_log_probs", "dpo", "dpo_log_probs", "margins", "modpo", *LAST_STEPS
)  # fmt: skip


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "MODPO (arXiv 2310.03708)")
    names, primary = task.objectives, config.modpo.primary
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)

    # The models of one objective each, and what each objective pays for a pair.
    models = single_objective_models(task, pairs, reference)
    if config.modpo.margins == "implicit":
        likelihoods = log_probs(task, "dpo_log_probs", pairs, models)
        margins = implicit_margins(task, reference, likelihoods)
    else:
        margins = rewarded_margins(task, rows, pairs)

    # A model for each preference between them, by its first objective, beyond the others' margins.
    trained = [is_trained(own, names, primary) for own in task.preferences.tolist()]
    weights = task.preferences[trained]
    first = [names.index(primary)] * len(weights) if primary else weights.argmax(axis=1).tolist()
    between = fine_tune_beyond(task, "modpo", weights, first, pairs, reference, margins)

    # Where the first objective has no weight, its margins' own policy is the optimum.
    served = mixtures(one_adapter_each("dpo", np.eye(len(names))), task.preferences, "logits")
    own = iter(one_adapter_each("modpo", weights))
    family = [
        dataclasses.replace(next(own), label=other.label) if is_own else other
        for is_own, other in zip(trained, served, strict=True)
    ]
    return leave(task, rows, {"modpo": family}, [models, between], pairs=pairs)


check = check_alignment
