"""What `compare_fronts` returned, as tables for readers: their cells, and their Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.exploitation import exploitation_warnings
from paretohqd_jax.evaluation.summaries import truncation_warnings

Efforts = Mapping[str, Sequence[Mapping[str, Any]]]  # of the runs of each contender


@dataclass(frozen=True)
class Table:
    """Cells by row and head; `corner` is the head of the rows' names."""

    title: str
    corner: str
    rows: Mapping[str, Mapping[str, str]]


def comparison_tables(comparison: Mapping[str, Any], efforts: Efforts) -> list[Table]:
    """What mean rewards tell of each front, what single answers do, and the mean rewards."""
    fronts = comparison["fronts"]
    frames = [frame["name"] for frame in comparison["frames"]]
    points = {name: _points_cells(front, frames) for name, front in fronts.items()}
    answers = {name: _answers_cells(front, efforts.get(name, ())) for name, front in fronts.items()}
    return [
        Table("Fronts", "method", points),
        Table("Answers and effort", "method", answers),
        Table("Mean rewards", "model", _mean_rewards(comparison)),
    ]


def comparison_text(
    comparison: Mapping[str, Any], efforts: Efforts, made_by: Mapping[str, str]
) -> str:
    """The tables in Markdown, with their frames and notes below them."""
    lines: list[str] = []
    for table in comparison_tables(comparison, efforts):
        lines += [*_markdown(table), ""]
    lines += [*comparison_notes(comparison), "", *provenance_lines(made_by)]
    return "\n".join(lines) + "\n"


def provenance_lines(made_by: Mapping[str, str]) -> list[str]:
    """Version, day and command, a line each."""
    return [f"{name}: {value}" for name, value in made_by.items()]


def _mean_rewards(comparison: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By model, base models first: its mean rewards with their intervals."""
    models = dict(comparison["bases"])
    for name, front in comparison["fronts"].items():
        if name not in comparison["bases"]:
            models |= {f"{name}, {_called(model)}": model for model in front["models"]}
    return {
        name: {
            objective: f"{mean:.3f} [{low:.3f}, {high:.3f}]"
            for objective, mean, low, high in zip(
                comparison["objectives"], model["mean_rewards"], *model["interval"], strict=True
            )
        }
        for name, model in models.items()
    }


def _called(model: Mapping[str, Any]) -> str:
    if model["preference"] is None:
        return model["label"]
    return " / ".join(f"{weight:.2f}" for weight in model["preference"])


def _markdown(table: Table) -> list[str]:
    head = [table.corner, *next(iter(table.rows.values()))]
    return markdown_table(head, {name: [*row.values()] for name, row in table.rows.items()})


def markdown_table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a table, whose `rows` are by the cell they begin with; numbers to the right."""
    cells = [head, ["---"] + ["---:"] * (len(head) - 1)]
    cells += [[name, *row] for name, row in rows.items()]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


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


def comparison_notes(comparison: Mapping[str, Any]) -> list[str]:
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
