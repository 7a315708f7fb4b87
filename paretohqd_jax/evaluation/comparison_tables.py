"""What `compare_fronts` returned, as tables for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.exploitation import exploitation_warnings
from paretohqd_jax.evaluation.summaries import truncation_warnings

Efforts = Mapping[str, Sequence[Mapping[str, Any]]]  # of the runs of each contender


def comparison_tables(comparison: Mapping[str, Any], efforts: Efforts) -> str:
    """The tables in Markdown, with their frames and notes below them."""
    fronts = comparison["fronts"]
    frames = [frame["name"] for frame in comparison["frames"]]
    points = {name: _points_cells(front, frames) for name, front in fronts.items()}
    answers = {name: _answers_cells(front, efforts.get(name, ())) for name, front in fronts.items()}
    lines = [*_table(points), "", *_table(answers), "", *_notes(comparison)]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The lines of a table of cells by their heads."""
    head = list(next(iter(rows.values())))
    cells = [["", *head], ["---"] + ["---:"] * len(head)]
    cells += [[name, *row.values()] for name, row in rows.items()]
    return ["| " + " | ".join(row) + " |" for row in cells]


def _points_cells(front: Mapping[str, Any], frames: Sequence[str]) -> dict[str, str]:
    """What mean rewards tell."""
    cells = {"runs": str(front["num_runs"])}
    for frame in frames:
        cells[f"hypervolume ({frame})"] = _in_frame(front, "hypervolume", frame)
        cells[f"gain ({frame})"] = _in_frame(front, "gain", frame) if "gain" in front else ""
    return cells | {
        "IGD+": f"{front['igd_plus']:.3f}",
        "GD": f"{front['generational_distance']:.3f}",
        "spacing": f"{front['spacing']:.3f}",
        "sparsity": f"{front['sparsity']:.3f}",
        "dominated": f"{front['dominated_share']:.0%}",
        "steerability": _numbers(front["steerability"]),
        "Kendall's \u03c4": _numbers(front["kendall"]),
        "inner product": _with_interval(front, "inner_product"),
    }


def _answers_cells(
    front: Mapping[str, Any], efforts: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What single answers are like, and what the runs took."""
    hours = [effort["device_hours"] for effort in efforts]
    return {
        "achievement": _with_interval(front, "achievement"),
        "hypervolume per prompt": _with_interval(front, "prompt_hypervolume"),
        "collapsed": f"{front['collapse']['total']:.1%}",
        "truncated": f"{front['truncated']:.1%}",
        "tokens": f"{np.mean([model['num_tokens'] for model in front['models']]):.0f}",
        "device hours": f"{np.mean(hours):.3f}" if hours else "",
        "device": ", ".join(sorted({effort["device"] for effort in efforts})),
    }


def _notes(comparison: Mapping[str, Any]) -> list[str]:
    fronts, objectives = comparison["fronts"], ", ".join(comparison["objectives"])
    percent = f"{comparison['bootstrap']['confidence']:.0%}"
    notes = [
        f"{comparison['num_prompts']} prompts. Of several runs each measure is the mean over runs; "
        f"in brackets, {percent} intervals by the bootstrap over prompts, and over runs where "
        "there are several; gains are above the first row.",
        f"Steerability and Kendall's \u03c4 are by objective ({objectives}), inner products in "
        "units of the first frame, spacing and sparsity in those of the last. Measures by "
        "preference are of several models that have some. Mean rewards of models that sample form "
        "a convex set: only achievement and hypervolume per prompt see single answers.",
    ]
    for base in comparison["bases"].values():
        notes += truncation_warnings(base, fronts)
    notes += exploitation_warnings(comparison["objectives"], fronts)
    if any(any(front["hypervolume_error"].values()) for front in fronts.values()):
        notes.append("± is the standard error of a Monte-Carlo estimate; --exact makes it exact.")
    for frame in comparison["frames"]:
        reference = ", ".join(f"{value:.4g}" for value in frame["reference_in_rewards"])
        notes.append(f"{frame['name']}: {frame['source']}; reference point ({reference}).")
    return notes


def _numbers(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:.2f}" for value in values or ())


def _with_interval(front: Mapping[str, Any], what: str) -> str:
    """A measure with its interval; nothing where it is not told."""
    if front[what] is None:
        return ""
    low, high = front[f"{what}_interval"]
    return f"{front[what]:.3f} [{low:.3f}, {high:.3f}]"


def _in_frame(front: Mapping[str, Any], what: str, frame: str) -> str:
    low, high = front[f"{what}_interval"][frame]
    sign = "+" if what == "gain" else ""
    estimated = front["hypervolume_error"][frame] if what == "hypervolume" else 0
    error = f" ± {estimated:.2g}" if estimated else ""
    return f"{front[what][frame]:{sign}.3f}{error} [{low:{sign}.3f}, {high:{sign}.3f}]"
