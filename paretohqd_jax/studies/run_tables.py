"""The tables and the plots of a study's runs, made of their stored points alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.bootstrap import CONFIDENCE
from paretohqd_jax.evaluation.comparison_tables import markdown_table
from paretohqd_jax.evaluation.plots import draw_truth, points_with_bars, write_picture
from paretohqd_jax.files import atomic_path, write_json
from paretohqd_jax.studies.constraint_plots import plot_constraints, trajectories_of_rows
from paretohqd_jax.studies.measured_tables import COSTS, MeasuredTable, measure_table
from paretohqd_jax.studies.plan import Study
from paretohqd_jax.studies.plots import (
    MARKERS,
    draw_front,
    draw_measures,
    finish_fronts,
    plot_fronts,
)
from paretohqd_jax.studies.stored import StoredRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What table.md shows, with titles; table.csv and table.json have every measure.
SHOWN = {
    "hypervolume (z-score)": "hypervolume", "hypervolume_ratio": "of the truth",
    "prompt_hypervolume": "hypervolume per prompt", "prompt_hypervolume_ratio": "of the truth",
    "achievement": "achievement", "achievement_ratio": "of the truth", "distance": "distance",
    "collapsed": "collapsed", "truncated": "truncated",
}  # fmt: skip
# What measures.png shows: the shares of a known front, or else the volumes themselves.
SHARES = {"of mean rewards": "hypervolume_ratio", "per prompt": "prompt_hypervolume_ratio"}
VOLUMES = {"of mean rewards": "hypervolume (z-score)", "per prompt": "prompt_hypervolume"}
MAX_PAIRED_OBJECTIVES = 3
NOTE = f"""\
Each measure is the mean over runs of several seeds; in brackets are {100 * CONFIDENCE:.0f} %
intervals by the bootstrap over prompts and seeds. Differences are paired: of the same seeds, on the
same draws. Hypervolume is of mean rewards, in standard deviations of the training rows; mean
rewards of models that sample form a convex set, and only hypervolume per prompt and achievement see
single answers. *Of the truth*: the share of what the true front has, 1 at best; *distance*: of
single answers to it, 0 at best. Cost is of one run, the mean over seeds: optimiser steps of all
adapters, tokens of the responses that are trained on, tokens generated to be trained on, and
seconds of all steps; that of the whole run also where a row is an earlier family of it.
"""


def write_tables(study: Study, runs: Sequence[StoredRun], workdir: Path) -> list[str]:
    """Writes table.md, .csv and .json and the pictures; returns the names of all.

    measures.png has every table. fronts.png has those whose fronts can be told apart: of no more
    rows than there are markers, and of so few objectives that pairs of them show anything.
    constraints_TABLE.png is of tables some of whose runs learnt under constraints.

    Raises:
      InputError: there is a run twice, or runs of one table do not compare.
    """
    for (name, seed), count in Counter((run.name, run.seed) for run in runs).items():
        if count > 1:
            raise InputError(f"the points of the run {name!r} of seed {seed} are given twice")
    tables = [measure_table(table, runs) for table in study.tables]
    tables = [table for table in tables if table.rows]
    if not tables:
        raise InputError("these are the points of none of the study's runs")
    write_json(workdir / "table.json", {table.name: vars(table) for table in tables})
    csv = [row for table in tables for row in _csv_rows(table)]
    write_table(workdir / "table.csv", pa.Table.from_pylist(csv))
    with atomic_path(workdir / "table.md") as temporary:
        temporary.write_text(markdown(tables))
    write_picture(workdir / "measures.png", [partial(_draw_measures, table) for table in tables])
    written = ["table.md", "table.csv", "table.json", "measures.png"]
    drawn = [
        table
        for table in tables
        if len(table.rows) <= len(MARKERS) and len(table.objectives) <= MAX_PAIRED_OBJECTIVES
    ]
    if drawn:
        plot_fronts(workdir / "fronts.png", drawn, _draw_table)
        written.append("fronts.png")
    for table in study.tables:
        if rows := trajectories_of_rows(table, runs):
            written.append("constraints_" + re.sub(r"[^\w.+-]", "_", table.name) + ".png")
            plot_constraints(workdir / written[-1], rows)
    return written


def _csv_rows(table: MeasuredTable) -> Iterator[dict[str, Any]]:
    """One number and its interval per row; differences are measures of their own."""
    for name, row in table.rows.items():
        for kind in ("measures", "differences"):
            for measure, value in row[kind].items():
                measure, _, number = measure.partition("/")
                yield {
                    "table": table.name,
                    "row": name,
                    "num_runs": row["num_runs"],
                    "against": table.against if kind == "differences" else "",
                    "measure": measure,
                    "objective": table.objectives[int(number)] if number else "",
                    "value": value["value"],
                    "low": value["interval"][0],
                    "high": value["interval"][1],
                }


def markdown(tables: Sequence[MeasuredTable]) -> str:
    """For each table what was measured, the differences, and what it cost."""
    return "\n".join([NOTE, *(line for table in tables for line in _markdown_lines(table))])


def _markdown_lines(table: MeasuredTable) -> Iterator[str]:
    shown = {
        name: title
        for name, title in SHOWN.items()
        if any(name in row["measures"] for row in table.rows.values())
    }
    yield f"## {table.name}"
    yield ""
    if table.missing:
        yield f"No run is done of: {', '.join(table.missing)}."
        yield ""
    yield from markdown_table(
        ["", "runs", *shown.values()],
        {
            name: [str(row["num_runs"]), *(_cell(row["measures"].get(key)) for key in shown)]
            for name, row in table.rows.items()
        },
    )
    yield ""
    yield f"Above {table.against}, over the seeds of both:"
    yield ""
    yield from markdown_table(
        ["", *shown.values()],
        {
            name: [_cell(row["differences"].get(key), "+") for key in shown]
            for name, row in table.rows.items()
            if row["differences"]
        },
    )
    yield ""
    yield from markdown_table(
        ["cost of a run", *(count.replace("_", " ") for count in COSTS), "seconds", "devices"],
        {
            name: [
                *(f"{row['cost'][count]:,.0f}" for count in COSTS),
                f"{sum(row['cost']['seconds'].values()):.0f}",
                ", ".join(row["cost"]["devices"]),
            ]
            for name, row in table.rows.items()
        },
    )
    yield ""


def _cell(value: Mapping[str, Any] | None, sign: str = "") -> str:
    if value is None:
        return ""
    texts = [f"{number:{sign}.3f}" for number in (value["value"], *value["interval"])]
    mean, low, high = (text.replace("-", "\u2212") for text in texts)
    return f"{mean} [{low}, {high}]"


def _draw_table(table: MeasuredTable, pair: tuple[int, int], axes: Axes) -> None:
    draw_truth(axes, {"truth": table.truth or {}})
    for number, (name, row) in enumerate(table.rows.items()):
        points, bars = points_with_bars(row["models"], pair)
        preferences = [model["preference"] for model in row["models"]]
        draw_front(axes, number, name, points, bars, preferences)
    finish_fronts(axes, table.objectives, pair, f"Mean rewards: {table.name}", num_columns=2)


def _draw_measures(table: MeasuredTable, axes: Axes) -> None:
    shown, unit = VOLUMES, "in standard deviations"
    if table.truth is not None:
        shown, unit = SHARES, "share of the true front's"
    measures = {
        title: {name: row["measures"].get(key) for name, row in table.rows.items()}
        for title, key in shown.items()
    }
    draw_measures(axes, measures, f"hypervolume, {unit} \u2192 better", table.name)
