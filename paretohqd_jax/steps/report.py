"""From what a run has measured to a report for readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.evaluation.answers import Answer, Sample
from paretohqd_jax.evaluation.colours import model_colours
from paretohqd_jax.evaluation.plots import (
    SUFFIXES,
    model_panels,
    plot_panels,
    selection_panels,
)
from paretohqd_jax.evaluation.report import (
    Effort,
    GatedRows,
    ImprovedPairs,
    SelectedRows,
    write_report,
)
from paretohqd_jax.manifest import LOGS
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policies, read_policies
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.evaluation import answers_of
from paretohqd_jax.steps.improvement import counts
from paretohqd_jax.steps.selection import selection_of
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.metrics import Metrics, read_metrics, trajectories_of

MAX_RESPONSES = 5000  # that the report holds, so that a browser stays quick with it
MAX_IMPROVED = 20  # pairs that the report shows


def report(
    task: Task,
    policies: Output,
    scored: Output,
    reference: Output,
    judged: Output,
    points: Output,
    selections: Sequence[Output] = (),
    pairs: Output | None = None,
    improvement: Sequence[Output] = (),
) -> Output:
    """Draws `front.png`, `.pdf` and `.svg`, and writes `report.html`, of the selections, too.

    The `pairs` and the `improvement` are those that the policies depend on already.
    """
    run = task.run
    work = partial(
        report_run,
        # The same results by another command, on other devices, say, need no other report.
        made_by=run.made_by,
        seconds=run.seconds,
        log_directory=run.workdir / LOGS,
        pairs=pairs,
        improvement=improvement,
    )
    return run.step(
        "report", "report", work, policies, scored, reference, judged, points, *selections,
        objectives=task.objectives, facts=facts_of(task),
    )  # fmt: skip


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
    pairs: Output | None = None,
    improvement: Sequence[Output] = (),
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
        _samples(run, read_table(judged.path), objectives), facts | _words(run) | made_by, shown,
        _effort(run, seconds(), log_directory), _gated(selections),
        pairs and json.loads(read_table(pairs.path).schema.metadata[b"pairs"]),
        improved_pairs(*improvement) if improvement else None,
    )  # fmt: skip


def improved_pairs(improvement: Output, agreement: Output) -> ImprovedPairs:
    """What the report says of improved pairs."""
    table = read_table(improvement.path)
    facts = counts(table)
    rewards = [name for name in table.column_names if name.startswith(("implicit ", "reward "))]
    by_pair: dict[int, dict[str, Answer]] = {}
    prompts = {}
    for row in table.to_pylist():
        if row["verdict"] in ("original", "taken"):
            key = "taken" if row["verdict"] == "taken" else row["source"]
            answer = Answer(row["response"], [row[name] for name in rewards])
            by_pair.setdefault(row["pair"], {})[key] = answer
            prompts[row["pair"]] = transcript(row["prompt"]).strip()
    improved = [
        (prompts[pair], [answers[key] for key in ("chosen", "rejected", "taken")])
        for pair, answers in by_pair.items()
        if "taken" in answers
    ]
    agreements = json.loads(agreement.path.read_text())
    return ImprovedPairs(facts, rewards, improved[:MAX_IMPROVED], agreements)


def _words(run: Policies) -> dict[str, str]:
    """What policies that are served ask in place of the user's words, where they do."""
    words = [f"{policy.label}: {policy.prompt}" for policy in run.served if policy.prompt]
    return {"asked in words of its own": "; ".join(words)} if words else {}


def _gated(selections: Sequence[Output]) -> list[GatedRows]:
    """What gates took from each of the selections."""
    gated = []
    for selection in selections:
        metadata = read_table(selection.path).schema.metadata
        facts = json.loads(metadata[b"selection"])
        gated.append(GatedRows(selection.path.stem, facts["num_before_gates"], facts["gates"]))
    return gated


def _effort(run: Policies, seconds: Mapping[str, float], log_directory: Path) -> Effort:
    metrics = {stack: read_metrics(log_directory / stack) for stack in run.stacks}
    losses = {stack: losses_of(told) for stack, told in metrics.items()}
    losses = {stack: curves for stack, curves in losses.items() if curves.size}
    preference_of = {
        policy.adapters[0]: policy.preference
        for _, policy in run.every()
        if len(policy.adapters) == 1
    }
    colours = {
        stack: model_colours([preference_of.get(f"{stack}/{name}") for name in names])
        for stack, names in run.stacks.items()
    }
    held_out = {stack: held_out_of(told) for stack, told in metrics.items()}
    constraints = {stack: trajectories_of(metrics[stack], run.stacks[stack]) for stack in losses}
    constraints = {stack: curves for stack, curves in constraints.items() if curves}
    rewards = {stack: rewards_of(told) for stack, told in metrics.items()}
    device = jax.devices()[0].device_kind
    return Effort(
        losses, colours, seconds, jax.device_count(), device, held_out, constraints, rewards
    )


def losses_of(metrics: Metrics) -> np.ndarray:
    """The training losses of a stack, `[num_adapters, num_steps]`; empty where they were not kept.

    `metrics` are the stack's. Adapters are in the order they were trained in, which is that of the
    stack.
    """
    return _curves(metrics, "loss/")


def rewards_of(metrics: Metrics) -> dict[str, np.ndarray]:
    """Mean rewards of a stack's own answers, `[num_adapters, num_updates]` by objective.

    None of a stack that learns from others' answers, or where they were not kept. Adapters are in
    the order of `losses_of`.
    """
    names = (name for name in metrics if name.startswith("reward/"))
    prefixes = dict.fromkeys(name[: name.rindex("/") + 1] for name in names)  # one to an objective
    curves = {prefix[len("reward/") : -1]: _curves(metrics, prefix) for prefix in prefixes}
    return {objective: values for objective, values in curves.items() if values.size}


def _curves(metrics: Metrics, prefix: str) -> np.ndarray:
    """The metrics of this prefix over time, `[num_adapters, num_times]`; empty if some are lost."""
    curves = [
        [value for _, value in sorted(values.items())]
        for name, values in metrics.items()
        if name.startswith(prefix)
    ]
    return np.array(curves) if len(set(map(len, curves))) == 1 else np.empty((0, 0))


def held_out_of(metrics: Metrics) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each adapter of a stack the `loss` and `accuracy` on held-out rows, first and last."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, values in metrics.items():
        measure, _, adapter = name.partition("/")
        if measure.startswith("held_out_"):
            ends = values[min(values)], values[max(values)]
            found.setdefault(adapter, {})[measure.removeprefix("held_out_")] = ends
    return found


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
            options = (
                f"{option} {value}"
                for option, value in group.items()
                if value != "" and (name, option) != ("rewards", "cache")
            )
            facts[name] = ", ".join(options)
        elif name != "method":
            facts[name] = str(group)
    return facts
