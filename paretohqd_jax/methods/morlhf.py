"""MORLHF: reinforcement learning from human feedback, with a weighted sum of rewards.

A model for each preference answers prompts, its answers are judged by all reward models, and those
that are worth more than others to the same prompt by the preference's weights become likelier,
while a KL divergence holds the model to the base model. All models are trained side by side.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import one_adapter_each
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.reinforcement import reinforce
from paretohqd_jax.steps.scoring import score_rows
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = ("score", "reference", "morlhf", *(step for step in LAST_STEPS if step != "reference"))


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "MORLHF, policy gradients by groups of answers")
    scored = score_rows(task)
    trained = reinforce(task, "morlhf", task.preferences, scored)
    family = one_adapter_each("morlhf", task.preferences)
    return leave(task, scored, {"morlhf": family}, [trained])


check = check_alignment
