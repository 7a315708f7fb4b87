"""Rewarded soups (Ramé et al., arXiv 2306.04488): models of one objective each, merged by weights.

A preference's model is the weighted sum of the updates that the objectives' models have learnt.
Nothing is trained beyond these, for any number of preferences. The method's name says what they
have learnt from. Models that each learn a mixture of the rewards, with the most weight on one, make
bone soups (Xie et al., arXiv 2502.10762).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.pipeline import Output, Run
from paretohqd_jax.policies import mixtures, one_adapter_each, preference_labels
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import single_objective_models
from paretohqd_jax.steps.reinforcement import reinforce
from paretohqd_jax.steps.scoring import score_rows
from paretohqd_jax.steps.soups import average_factors, best_rows
from paretohqd_jax.steps.task import Task, check_alignment, open_task
from paretohqd_jax.steps.training import fine_tune

ROUNDING = 1e-12  # what is left of a share of 0


class Ingredients(NamedTuple):
    """Models of one objective each, as a stack, the data, and what is trained on of these."""

    models: Output
    learnt: np.ndarray  # the weights of the objectives for each model, [num_models, num_objectives]
    rows: Output
    selections: Sequence[Output] = ()
    pairs: Output | None = None


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    title, make = SOURCES[config.method]
    task = open_task(config, run, f"soups of {title} (arXiv 2306.04488)")
    models, learnt, rows, selections, pairs = make(task)
    labels, shares = preference_labels(task.preferences), shares_of(task.preferences, learnt)
    if config[config.method].average == "factors":
        soups = average_factors(task, config.method, labels, shares, models)
        family, stacks = one_adapter_each(config.method, task.preferences), [models, soups]
    else:
        corners = one_adapter_each(models.path.name, learnt)
        family, stacks = mixtures(corners, task.preferences, shares=shares), [models]
    return leave(task, rows, {config.method: family}, stacks, selections, pairs)


def shares_of(preferences: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """The shares of the models in each preference's soup, `[num_preferences, num_models]`.

    By them the rewards that the models have learnt, weighted by `learnt` `[num_models,
    num_objectives]`, sum up to the preference's. A preference beyond what a model has learnt takes
    another model away: its share is negative.
    """
    shares = np.linalg.solve(learnt.T, preferences.T).T
    return np.where(np.abs(shares) < ROUNDING, 0.0, shares)


def dpo_models(task: Task) -> Ingredients:
    """DPO models, each of the pairs that its objective decides."""
    rows, pairs = preference_data(task)
    reference = log_probs(task, "reference_log_probs", pairs)
    models = single_objective_models(task, pairs, reference)
    return Ingredients(models, np.eye(len(task.objectives)), rows, pairs=pairs)


def reinforced_models(task: Task) -> Ingredients:
    """Models that have learnt from their own answers by one reward each, as by MORLHF.

    Of bone soups, by all rewards, one of which has the weight `own_weight`; the others share the
    rest.
    """
    rows, num_objectives = score_rows(task), len(task.objectives)
    own = task.config.rewarded_soup.own_weight
    learnt = np.full((num_objectives, num_objectives), (1 - own) / max(num_objectives - 1, 1))
    np.fill_diagonal(learnt, own)
    return Ingredients(reinforce(task, "morlhf_corners", learnt, rows), learnt, rows)


def sft_models(task: Task) -> Ingredients:
    """Models fine-tuned on the rows that are best on their objective."""
    corners = np.eye(len(task.objectives))
    rows = score_rows(task)
    best = best_rows(task, "select", "sft_corners", rows)
    labels, num_steps = preference_labels(corners), task.config.train.num_steps
    models = fine_tune(task, "sft_corners", labels, rows, best, num_steps)
    return Ingredients(models, corners, rows, [best])


SOURCES = {
    "rewarded_soup": ("models of one reward each", reinforced_models),
    "dpo_soup": ("DPO models", dpo_models),
    "sft_soup": ("models of the best rows", sft_models),
}
STEPS = (
    "score", "pairs", "reference_log_probs", "dpo", "select", "sft_corners", "morlhf_corners",
    *SOURCES, *LAST_STEPS,
)  # fmt: skip
check = check_alignment
