"""From the policies' scored answers to numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.config import split_model
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.evaluation.exploitation import SCORERS, exploitation_warnings
from paretohqd_jax.evaluation.front import evaluate_fronts
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.evaluation.summaries import truncation_warnings
from paretohqd_jax.evaluation.truth import find_truth
from paretohqd_jax.files import write_json
from paretohqd_jax.manifest import versions
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policies, Policy, read_policies
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.task import Task

logger = logging.getLogger(__name__)


def evaluate(task: Task, policies: Output, reference: Output, judged: Output) -> Output:
    """Measures the base model and all policies on their scored answers to the held-out prompts.

    `reference` holds training rows whose rewards are in the units of the answers', for the z-score
    frame.
    """
    return task.run.step(
        "evaluate", "evaluation/points.json", measure_policies, policies, reference, judged,
        objectives=task.objectives, engine=task.config.generate.engine,
        unrewarded=unrewarded_columns(run_gates(task.config).scorers),
        truth=task.config.evaluate.truth,
    )  # fmt: skip


def unrewarded_columns(scorers: Sequence[str]) -> dict[str, str]:
    """The columns of scores that say whether rewards are exploited, by what gives them.

    `scorers` are entries like those of `config.rewards.models` that are no objectives.
    """
    columns = {}
    for entry in scorers:
        column, scorer = split_model(entry)
        if scorer.partition("@")[0] in SCORERS:
            columns.setdefault(scorer.partition("@")[0], column)
    return columns


def measure_policies(
    path: Path,
    scratch: Path,
    policies: Output,
    reference: Output,
    judged: Output,
    *,
    objectives: Sequence[str],
    engine: str,
    unrewarded: Mapping[str, str] | None = None,
    truth: str = "",
) -> None:
    """Leaves what `evaluate_fronts` returns; `run` has the engine, versions and other columns."""
    table = read_table(reference.path)
    base, fronts = fronts_of(
        read_policies(policies.path), read_table(judged.path), objectives, judged.path, unrewarded
    )
    training_rewards = rewards_matrix(table, objectives, reference.path)[is_candidate(table)]
    known = find_truth(truth, len(objectives)) if truth else None
    result = evaluate_fronts(objectives, fronts, base, training_rewards, known)
    run = {"engine": engine, "versions": versions(), "unrewarded": unrewarded or {}}
    write_json(path, result | {"run": run})
    for warning in (
        *truncation_warnings(result["base"], result["fronts"]),
        *exploitation_warnings(objectives, result["fronts"]),
    ):
        logger.warning("%s", warning)
    for name, front in result["fronts"].items():
        logger.info(
            "%s: hypervolume %s (base model alone %s), steerability %s, collapsed %.1f %%",
            name,
            _rounded(front["hypervolume"]),
            _rounded(result["base"]["hypervolume"]),
            [round(value, 3) for value in front["steerability"] or []] or "of no preferences",
            100 * front["collapse"]["total"],
        )


def fronts_of(
    policies: Policies,
    answers: pa.Table,
    objectives: Sequence[str],
    source: Path,
    unrewarded: Mapping[str, str] | None = None,
) -> tuple[ModelResponses, dict[str, list[ModelResponses]]]:
    """The scored answers of the base model, and those of each family's policies in order.

    Args:
      policies: of the run.
      answers: `family`, `policy` and the columns of scored responses.
      objectives: the columns of rewards.
      source: of the answers, for messages.
      unrewarded: as of `unrewarded_columns`.
    """
    base, *others = [
        model_responses(policy, answers_of(answers, family, policy), objectives, source, unrewarded)
        for family, policy in policies.every()
    ]
    rest = iter(others)
    return base, {name: [next(rest) for _ in family] for name, family in policies.families.items()}


def answers_of(answers: pa.Table, family: str, policy: Policy) -> pa.Table:
    """The answers of one policy."""
    own = pc.and_(pc.equal(answers["family"], family), pc.equal(answers["policy"], policy.label))
    return answers.filter(own)


def model_responses(
    policy: Policy,
    rows: pa.Table,
    objectives: Sequence[str],
    source: Path,
    unrewarded: Mapping[str, str] | None = None,
) -> ModelResponses:
    """The scored answers of one policy, one per held-out prompt."""
    return ModelResponses(
        policy,
        rewards_matrix(rows, objectives, source),
        *(rows[name].to_pylist() for name in ("collapsed", "response", "num_tokens", "truncated")),
        {
            name: rewards_matrix(rows, [column], source)[:, 0]
            for name, column in (unrewarded or {}).items()
        },
    )


def _rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
