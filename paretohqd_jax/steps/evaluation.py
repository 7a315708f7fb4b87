"""From the policies' scored answers to numbers and a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.config import split_model
from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.evaluation.answers import Answer, Sample
from paretohqd_jax.evaluation.colours import model_colours
from paretohqd_jax.evaluation.exploitation import SCORERS, exploitation_warnings
from paretohqd_jax.evaluation.front import evaluate_fronts
from paretohqd_jax.evaluation.plots import (
    SUFFIXES,
    model_panels,
    plot_panels,
    selection_panels,
)
from paretohqd_jax.evaluation.report import Effort, GatedRows, SelectedRows, write_report
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.evaluation.summaries import truncation_warnings
from paretohqd_jax.evaluation.truth import find_truth
from paretohqd_jax.files import write_json
from paretohqd_jax.manifest import versions
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policies, Policy, read_policies
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.selection import selection_of
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.metrics import read_metrics

MAX_RESPONSES = 5000  # that the report holds, so that a browser stays quick with it

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


def report(
    task: Task,
    policies: Output,
    scored: Output,
    reference: Output,
    judged: Output,
    points: Output,
    selections: Sequence[Output] = (),
) -> Output:
    """Draws `front.png`, `.pdf` and `.svg`, and writes `report.html`, of the selections, too."""
    run = task.run
    work = partial(
        report_run,
        # The same results by another command, on other devices, say, need no other report.
        made_by=run.made_by,
        seconds=run.seconds,
        log_directory=run.workdir / "logs",
    )
    return run.step(
        "report", "report", work, policies, scored, reference, judged, points, *selections,
        objectives=task.objectives, facts=facts_of(task),
    )  # fmt: skip


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


def report_run(
    path: Path,
    scratch: Path,
    policies: Output,
    scored: Output,
    reference: Output,
    judged: Output,
    points: Output,
    *selections: Output,
    objectives: Sequence[str],
    facts: dict[str, str],
    made_by: dict[str, str],
    seconds: Callable[[], dict[str, float]],
    log_directory: Path,
) -> None:
    """Draws and writes the report.

    `reference` as of `evaluate`; the first of the `selections` was made from `scored`, and is drawn
    if it was by preferences; `made_by` is told with the `facts`; `seconds` gives those of finished
    steps.
    """
    run = read_policies(policies.path)
    evaluation = json.loads(points.path.read_text())
    training_rows = read_table(reference.path)
    cloud = rewards_matrix(training_rows, objectives, reference.path)[is_candidate(training_rows)]
    shown, panels = None, []
    if selections and "preferences" in selections[0].options:
        options = selections[0].options
        _, rewards, result = selection_of(read_table(scored.path), scored.path, **options)
        shown = SelectedRows(np.array(options["preferences"]), rewards, result)
        panels = selection_panels(objectives, shown.preferences, rewards, result)
    panels += model_panels(evaluation, cloud)
    path.mkdir(parents=True, exist_ok=True)
    for suffix in SUFFIXES:
        plot_panels(path / f"front{suffix}", panels, len(objectives))
    write_report(
        path / "report.html", evaluation, cloud,
        _samples(run, read_table(judged.path), objectives), facts | made_by, shown,
        _effort(run, seconds(), log_directory), _gated(selections),
    )  # fmt: skip


def _gated(selections: Sequence[Output]) -> list[GatedRows]:
    """What gates took from each of the selections."""
    gated = []
    for selection in selections:
        metadata = read_table(selection.path).schema.metadata
        facts = json.loads(metadata[b"selection"])
        gated.append(GatedRows(selection.path.stem, facts["num_before_gates"], facts["gates"]))
    return gated


def _effort(run: Policies, seconds: Mapping[str, float], log_directory: Path) -> Effort:
    losses = {stack: losses_of(log_directory / stack) for stack in run.stacks}
    losses = {stack: curves for stack, curves in losses.items() if curves.size}
    preference_of = {
        policy.adapters[0]: policy.preference
        for _, policy in run.every()
        if len(policy.adapters) == 1
    }
    colours = {
        stack: model_colours([preference_of.get(f"{stack}/{name}") for name in run.stacks[stack]])
        for stack in losses
    }
    return Effort(losses, colours, seconds, jax.device_count(), jax.devices()[0].device_kind)


def losses_of(log_directory: Path) -> np.ndarray:
    """The training losses of a stack, `[num_adapters, num_steps]`; empty where they were not kept.

    Adapters are in the order they were trained in, which is that of the stack.
    """
    curves = [
        [loss for _, loss in sorted(values.items())]
        for name, values in read_metrics(log_directory).items()
        if name.startswith("loss/")
    ]
    return np.array(curves) if len(set(map(len, curves))) == 1 else np.empty((0, 0))


def _samples(run: Policies, answers: pa.Table, objectives: Sequence[str]) -> list[Sample]:
    """The first held-out prompts, each with the answers of all policies."""
    every = run.every()
    columns = ["prompt", "response", "collapsed", *objectives]
    num_samples = max(MAX_RESPONSES // len(every), 1)
    rows_of = [
        answers_of(answers, family, policy).select(columns).slice(0, num_samples).to_pylist()
        for family, policy in every
    ]

    def answer(row: Mapping[str, Any]) -> Answer:
        return Answer(row["response"], [row[name] for name in objectives], row["collapsed"])

    samples = []
    for base, *others in zip(*rows_of, strict=True):
        rest = map(answer, others)
        fronts = {name: [next(rest) for _ in family] for name, family in run.families.items()}
        samples.append(Sample(transcript(base["prompt"]).strip(), answer(base), fronts))
    return samples


def facts_of(task: Task) -> dict[str, str]:
    """What a reader of the report should know of the run's options."""
    facts = {"method": task.title}
    for name, group in task.config.to_dict().items():
        if name == "mesh":  # any gives the same results
            continue
        if isinstance(group, dict):
            options = (f"{option} {value}" for option, value in group.items() if value != "")
            facts[name] = ", ".join(options)
        elif name != "method":
            facts[name] = str(group)
    return facts
