"""The last steps of every method: from the models' scored answers to numbers and a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.evaluation.answers import Answer, Sample
from paretohqd_jax.evaluation.front import ModelResponses, evaluate_fronts
from paretohqd_jax.evaluation.plots import plot_front
from paretohqd_jax.evaluation.report import Effort, write_report
from paretohqd_jax.files import write_json
from paretohqd_jax.methods.selection import is_candidate, selection_of
from paretohqd_jax.pipeline import Output
from paretohqd_jax.training.metrics import read_metrics

STAGES = ("stage1", "stage2")
MAX_RESPONSES = 5000  # that the report holds, so that a browser stays quick with it

logger = logging.getLogger(__name__)


def evaluate_models(
    path: Path,
    scratch: Path,
    reference: Output,
    judged: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    stages: Sequence[str] = STAGES,
) -> None:
    """Measures the base model and the models of all stages on the held-out prompts.

    `reference` holds training rows whose rewards are in the units of the answers', for the z-score
    frame.
    """
    table = read_table(reference.path)
    answers = read_table(judged.path)
    base, *models = [
        model_responses(rows, objectives, judged.path)
        for rows in rows_by_model(answers, 1 + len(stages) * len(preferences))
    ]
    training_rewards = rewards_matrix(table, objectives, reference.path)[is_candidate(table)]
    fronts = {
        stage: models[number * len(preferences) : (number + 1) * len(preferences)]
        for number, stage in enumerate(stages)
    }
    result = evaluate_fronts(objectives, np.array(preferences), fronts, base, training_rewards)
    write_json(path, result)
    for name, front in result["fronts"].items():
        logger.info(
            "%s: hypervolume %s (base model alone %s), steerability %s, collapsed %.1f %%",
            name,
            _rounded(front["hypervolume"]),
            _rounded(result["base"]["hypervolume"]),
            [round(value, 3) for value in front["steerability"]],
            100 * front["collapse"]["total"],
        )


def model_responses(rows: pa.Table, objectives: Sequence[str], source: Path) -> ModelResponses:
    """The rows of one model in the table of scored responses, one per held-out prompt."""
    return ModelResponses(
        rewards_matrix(rows, objectives, source),
        *(rows[name].to_pylist() for name in ("collapsed", "response", "num_tokens")),
    )


def rows_by_model(answers: pa.Table, num_models: int) -> list[pa.Table]:
    """The base model's scored responses, then those of each stage's models in order."""
    return [answers.filter(pc.equal(answers["adapter"], model)) for model in range(num_models)]


def _rounded(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def report_run(
    path: Path,
    scratch: Path,
    scored: Output,
    reference: Output,
    judged: Output,
    points: Output,
    *,
    objectives: Sequence[str],
    preferences: list[list[float]],
    selection: dict[str, Any],
    facts: dict[str, str],
    seconds: Callable[[], dict[str, float]],
    steps: Sequence[str],
    log_directory: Path,
) -> None:
    """Draws `front.png` and writes `report.html`; both tell of the stage-1 selection.

    `reference` as of `evaluate_models`; `seconds` gives those of finished steps; `steps` are the
    ones to show, in order.
    """
    table = read_table(scored.path)
    _, rewards, selected = selection_of(
        table, scored.path, objectives=objectives, preferences=preferences, **selection
    )
    training_rows = read_table(reference.path)
    cloud = rewards_matrix(training_rows, objectives, reference.path)[is_candidate(training_rows)]
    evaluation = json.loads(points.path.read_text())
    answers = read_table(judged.path)
    losses = {
        stage: curves for stage in STAGES if (curves := losses_of(log_directory / stage)).size
    }
    taken = seconds()
    taken = {step: taken[step] for step in steps if step in taken}
    effort = Effort(losses, taken, jax.device_count(), jax.devices()[0].device_kind)
    path.mkdir(parents=True, exist_ok=True)
    plot_front(
        path / "front.png", objectives, np.array(preferences), rewards, selected, evaluation, cloud
    )
    write_report(
        path / "report.html", evaluation, rewards, selected,
        _samples(answers, objectives, len(preferences)), facts, effort, cloud=cloud,
    )  # fmt: skip


def losses_of(log_directory: Path) -> np.ndarray:
    """The training losses of a stage, `[num_models, num_steps]`; empty where they were not kept.

    Adapters are in the order they were trained in, which is that of the preferences.
    """
    curves = [
        [loss for _, loss in sorted(values.items())]
        for name, values in read_metrics(log_directory).items()
        if name.startswith("loss/")
    ]
    return np.array(curves) if len(set(map(len, curves))) == 1 else np.empty((0, 0))


def _samples(answers: pa.Table, objectives: Sequence[str], num_preferences: int) -> list[Sample]:
    """The first held-out prompts, each with the answers of all models."""
    models = rows_by_model(answers, 1 + len(STAGES) * num_preferences)
    columns = ["response", "collapsed", *objectives]
    num_samples = max(MAX_RESPONSES // len(models), 1)
    base, *others = [model.select(columns).slice(0, num_samples).to_pylist() for model in models]
    prompts = models[0]["prompt"].slice(0, num_samples).to_pylist()

    def answer(row: dict[str, Any]) -> Answer:
        return Answer(row["response"], [row[name] for name in objectives], row["collapsed"])

    def fronts(number: int) -> dict[str, list[Answer]]:
        every = [answer(rows[number]) for rows in others]
        return {
            stage: every[index * num_preferences : (index + 1) * num_preferences]
            for index, stage in enumerate(STAGES)
        }

    return [
        Sample(prompt, answer(base[number]), fronts(number))
        for number, prompt in enumerate(prompts)
    ]
