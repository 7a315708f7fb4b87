"""The report of a run: one HTML file that needs no network, server or other files."""

from __future__ import annotations

import base64
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.answers import Sample, slider
from paretohqd_jax.evaluation.collapse import CAUSES
from paretohqd_jax.evaluation.curves import loss_panels
from paretohqd_jax.evaluation.plots import (
    draw,
    model_panels,
    preference_colours,
    selection_panels,
    title,
)
from paretohqd_jax.files import atomic_path
from paretohqd_jax.pareto import Selection

if TYPE_CHECKING:
    from paretohqd_jax.evaluation.plots import Panel


@dataclass(frozen=True)
class Effort:
    """What a run took.

    Attributes:
      losses: by stage, `[num_models, num_steps]`.
      seconds: by step, in the order they ran.
      num_devices: of the run.
      devices: what kind they are.
    """

    losses: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]
    num_devices: int
    devices: str


def write_report(
    path: str | os.PathLike[str],
    evaluation: Mapping[str, Any],
    rewards: np.ndarray,
    selection: Selection,
    samples: Sequence[Sample],
    facts: Mapping[str, Any],
    effort: Effort | None = None,
    heading: str = "One model per preference",
    cloud: np.ndarray | None = None,
) -> None:
    """Writes the report as HTML; the same input gives the same bytes.

    Args:
      path: of the file.
      evaluation: what `evaluate_fronts` returned.
      rewards: `[num_rows, num_objectives]` of the scored rows.
      selection: the rows of stage 1, from `paretohqd_jax.pareto.select` on `rewards`.
      samples: prompts to show with every model's answer.
      facts: name and value of what else a reader should know of the run: model, data, options.
      effort: training curves and times, where they are known.
      heading: of the page.
      cloud: `[num_rows, num_objectives]` to draw behind the models, by default `rewards`.
    """
    objectives, preferences = evaluation["objectives"], np.array(evaluation["preferences"])
    page = _environment().get_template("report.html.jinja")
    html = page.render(
        heading=heading,
        style=_resource("report.css"),
        objectives=objectives,
        num_prompts=evaluation["num_prompts"],
        collapse_detector=evaluation["collapse_detector"],
        confidence=percent(evaluation["bootstrap"]["confidence"], 0),
        causes=[*CAUSES, "total"],
        frames=evaluation["frames"],
        tiles=_tiles(evaluation),
        figures=_figures(
            evaluation, preferences, rewards, selection, rewards if cloud is None else cloud
        ),
        stages=[
            front | {"name": stage, "title": title(stage)}
            for stage, front in evaluation["fronts"].items()
        ],
        **_models(evaluation, preferences),
        samples=samples,
        slider=slider(objectives, preferences, samples) if samples else None,
        script=_resource("report.js"),
        facts=facts,
        effort=_effort(effort, preferences) if effort else None,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _tiles(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers at the top, of the last stage."""
    stage, front = list(evaluation["fronts"].items())[-1]
    base = evaluation["base"]
    frame = evaluation["frames"][0]["name"]
    before = [
        f"{title(other)}: {number(other_front['hypervolume'][frame])}"
        for other, other_front in evaluation["fronts"].items()
        if other != stage
    ]
    before.append(f"base model alone: {number(base['hypervolume'][frame])}")
    error = front.get("hypervolume_error", {}).get(frame)  # runs of earlier versions have none
    named = zip(evaluation["objectives"], front["steerability"], strict=True)
    num_models = len(front["models"])
    num_dominated = round(front["dominated_share"] * num_models)
    return [
        {
            "name": f"Hypervolume ({frame})",
            "value": number(front["hypervolume"][frame]) + (f" ± {number(error)}" if error else ""),
            "note": ", ".join(before),
        },
        {
            "name": "Steerability (lowest)",
            "value": number(min(front["steerability"])),
            "note": ", ".join(f"{objective}: {number(value)}" for objective, value in named),
        },
        {
            "name": "Collapsed responses",
            "value": percent(front["collapse"]["total"]),
            "note": f"base model: {percent(base['collapse']['total'])}",
        },
        {
            "name": "Dominated models",
            "value": f"{num_dominated} of {num_models}",
            "note": "beaten by another model of the same stage",
        },
    ]


def _figures(
    evaluation: Mapping[str, Any],
    preferences: np.ndarray,
    rewards: np.ndarray,
    selection: Selection,
    cloud: np.ndarray,
) -> list[dict[str, Any]]:
    """The two figures: one PNG in base64 per pair of objectives, and a caption."""
    objectives = evaluation["objectives"]
    num_pool = int((np.asarray(selection.ranks) >= 0).sum())
    k = np.shape(selection.row_ids)[1]
    if len(objectives) == 2:
        colour = f"Colour is the weight of {objectives[0]}."
    else:
        colour = "Colour mixes one hue per objective by weight; the axes bear the hues."
    chosen = (
        f"Of {len(rewards):,} scored rows, {num_pool:,} in the first non-dominated layers form the "
        f"Pareto pool. Each preference trains on {k} of them: those nearest to its ray from the "
        f"ideal point, unless another rule was set. A row taken by several shows as rings. {colour}"
    )
    reached = (
        "Mean rewards on held-out prompts, one point per model, numbered as in the tables. "
        f"Bars are {percent(evaluation['bootstrap']['confidence'], 0)} intervals. The scored rows "
        "lie behind."
    )
    pictures = [
        (selection_panels(objectives, preferences, rewards, selection), chosen),
        (model_panels(evaluation, cloud), reached),
    ]
    return [
        {"images": [_image(panel) for panel in panels], "caption": text}
        for panels, text in pictures
    ]


def _image(panel: Panel) -> str:
    """A PNG in base64."""
    return base64.b64encode(draw([panel])).decode()


def _effort(effort: Effort, preferences: np.ndarray) -> dict[str, Any]:
    """Training curves, and each step's seconds, share of all and device-hours."""
    total = sum(effort.seconds.values())
    steps = {**effort.seconds, "all steps": total}
    return {
        "images": [_image(panel) for panel in loss_panels(effort.losses, preferences)],
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
    }


def _models(evaluation: Mapping[str, Any], preferences: np.ndarray) -> dict[str, Any]:
    """The models with their colours and, for the tables, the summary of each stage."""
    fronts = list(evaluation["fronts"].values())
    summaries = [evaluation["base"], *(model for front in fronts for model in front["models"])]
    means = np.array([summary["mean_rewards"] for summary in summaries])
    low, high = means.min(axis=0), means.max(axis=0)

    def with_cells(summary: Mapping[str, Any]) -> dict[str, Any]:
        mean = np.array(summary["mean_rewards"])
        bars = 100 * (mean - low) / np.where(high > low, high - low, 1)
        cells = zip(mean, *summary["interval"], bars.round(1).tolist(), strict=True)
        return {**summary, "cells": list(cells)}

    colours = (255 * preference_colours(preferences)).round().astype(int)
    models = [
        {
            "preference": preference.tolist(),
            "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            "summaries": [with_cells(front["models"][index]) for front in fronts],
        }
        for index, (preference, colour) in enumerate(zip(preferences, colours, strict=True))
    ]
    return {"models": models, "base": with_cells(evaluation["base"])}


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.replace("-", "")


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.{digits}f}\u202f%"


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
