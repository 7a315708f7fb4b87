"""SIPO (arXiv 2502.14354): models improve their own answers where objectives disagree.

Where the objectives prefer different responses, DPO pulls its models apart. So these write answers
of their own, by mixtures, and what is better than both responses under all of their rewards at
once teaches them a second time, whichever objective they serve.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config.sipo import mixture_weights
from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import mixtures, one_adapter_each
from paretohqd_jax.steps.conflicts import (
    candidate_log_probs,
    gather_candidates,
    pairs_in_conflict,
    reward_models_within,
)
from paretohqd_jax.steps.generation import generate
from paretohqd_jax.steps.implicit_agreement import implicit_agreement
from paretohqd_jax.steps.improvement import improve
from paretohqd_jax.steps.leaving import LAST_STEPS, leave
from paretohqd_jax.steps.log_probs import log_probs
from paretohqd_jax.steps.pairs import preference_data
from paretohqd_jax.steps.preferences import single_objective_models
from paretohqd_jax.steps.realignment import realign
from paretohqd_jax.steps.refinement import check_refinement, refine
from paretohqd_jax.steps.scoring import score_responses
from paretohqd_jax.steps.task import check_alignment, open_task

STEPS = (
    "score", "pairs", "conflicts", "reference_log_probs", "dpo", "agreement", "draft", "review",
    "rewrite", "candidates", "soups", "implicit_rewards", "judge_candidates", "improvement",
    "sipo", *LAST_STEPS,
)  # fmt: skip


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the method over the run directory and returns its report; finished steps are skipped."""
    task = open_task(config, run, "SIPO, learning from better answers (arXiv 2502.14354)")
    rows, pairs = preference_data(task)
    conflicts = pairs_in_conflict(task, pairs)

    # Align: a DPO model of each objective.
    reference = log_probs(task, "reference_log_probs", pairs)
    models = single_objective_models(task, pairs, reference)
    agreement = implicit_agreement(task, pairs, models)
    corners = one_adapter_each("dpo", np.eye(len(task.objectives)))

    # Sample, review and rewrite.
    weights = mixture_weights(config.sipo.weights, len(task.objectives))
    writers = mixtures(corners, weights, "logits")
    drafts = generate(task, "draft", "improvement/drafts.parquet", conflicts, writers, models)
    rewrites = refine(task, drafts, writers, models)

    # Filter: better than both responses under the rewards of all models and soups.
    candidates = gather_candidates(task, conflicts, drafts, rewrites)
    judges, stacks = reward_models_within(task, models)
    likelihoods = candidate_log_probs(task, candidates, judges, stacks)
    judged = score_responses(task, "judge_candidates", "improvement/judged.parquet", candidates)
    improvement = improve(task, conflicts, judged, likelihoods)

    # Align again, on top of each model, and decode by all of them.
    realigned = realign(task, models, conflicts, candidates, likelihoods, improvement)
    again = one_adapter_each("sipo", np.eye(len(task.objectives)))
    families = {
        "mod": mixtures(corners, task.preferences, "logits"),
        "sipo": mixtures(again, task.preferences, "logits"),
    }
    told = (improvement, agreement)
    return leave(task, rows, families, [models, realigned], pairs=pairs, improvement=told)


def check(config: ConfigDict) -> None:
    """Raises InputError for what can be known to be wrong before a run directory is touched."""
    check_alignment(config)
    check_refinement(config)
