"""The tables and the plot of a study's runs, made of their stored points alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.bootstrap import CONFIDENCE, interval, resample
from paretohqd_jax.evaluation.plots import (
    OBJECTIVE_COLOURS,
    draw,
    draw_truth,
    points_with_bars,
    short_name,
)
from paretohqd_jax.evaluation.summaries import model_summaries
from paretohqd_jax.evaluation.truth import Measured, describe_truth, find_truth
from paretohqd_jax.files import atomic_path, write_json
from paretohqd_jax.studies.plan import Study, Table
from paretohqd_jax.studies.run_measures import RowRuns, measures_of, yardsticks_of
from paretohqd_jax.studies.stored import BASE_FAMILY, StoredRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP<>Xp"
# What table.md shows, with titles; table.csv and table.json have every measure.
SHOWN = {
    "hypervolume (z-score)": "hypervolume", "hypervolume_ratio": "of the truth",
    "prompt_hypervolume": "hypervolume per prompt", "prompt_hypervolume_ratio": "of the truth",
    "achievement": "achievement", "achievement_ratio": "of the truth", "distance": "distance",
    "collapsed": "collapsed", "truncated": "truncated",
}  # fmt: skip
COSTS = ("optimizer_steps", "tokens_trained", "tokens_generated")
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


@dataclass(frozen=True)
class Measures:
    """What came out for one table.

    Attributes:
      name: of the table.
      objectives: `[num_objectives]` names.
      against: the row that differences are to.
      truth: of the task, described, or None.
      rows: by name, `num_runs`, `measures` and `differences` (each a value and its interval by
        name), `models` and `cost`.
      missing: rows that no run of is there.
    """

    name: str
    objectives: list[str]
    against: str
    truth: dict[str, Any] | None
    rows: dict[str, dict[str, Any]]
    missing: list[str]


def write_tables(study: Study, runs: Sequence[StoredRun], workdir: Path) -> list[str]:
    """Writes table.md, table.csv, table.json and fronts.png; returns their names.

    Raises:
      InputError: there is a run twice, or runs of one table do not compare.
    """
    for (name, seed), count in Counter((run.name, run.seed) for run in runs).items():
        if count > 1:
            raise InputError(f"the points of the run {name!r} of seed {seed} are given twice")
    tables = [_measure(table, runs) for table in study.tables]
    tables = [table for table in tables if table.rows]
    if not tables:
        raise InputError("these are the points of none of the study's runs")
    write_json(workdir / "table.json", {table.name: vars(table) for table in tables})
    csv = [row for table in tables for row in _csv_rows(table)]
    write_table(workdir / "table.csv", pa.Table.from_pylist(csv))
    with atomic_path(workdir / "table.md") as temporary:
        temporary.write_text(markdown(tables))
    _plot(workdir / "fronts.png", tables)
    return ["table.md", "table.csv", "table.json", "fronts.png"]


def _measure(table: Table, runs: Sequence[StoredRun]) -> Measures:
    names = {row.runs for row in table.rows}
    used = sorted((run for run in runs if run.name in names), key=lambda run: run.seed)
    against = table.against or table.rows[0].name
    if not used:
        return Measures(table.name, [], against, None, {}, [row.name for row in table.rows])
    _check_alike(table, used)
    rows = {}
    for row in table.rows:
        ours = [run for run in used if run.name == row.runs]
        if ours:
            rows[row.name] = RowRuns(
                {run.seed: run.family(row.family) for run in ours},
                {run.seed: run.family(BASE_FAMILY)[0] for run in ours},
            )
    known = used[0].config["evaluate"].get("truth")
    truth = find_truth(known, len(used[0].objectives)) if known else None
    yardsticks = yardsticks_of(used, list(rows.values()))

    def measures(name: str, seeds: Sequence[int]) -> dict[str, Measured]:
        return measures_of(rows[name], seeds, yardsticks, truth)

    told = {}
    cost = {row.name: _cost([run for run in used if run.name == row.runs]) for row in table.rows}
    for name, row in rows.items():
        seeds = list(row.families)
        found = measures(name, seeds)
        told[name] = {
            "num_runs": len(seeds),
            "seeds": seeds,
            "measures": {key: _summary(each) for key, each in found.items()},
            "differences": _differences(name, against, rows, measures, found),
            "models": model_summaries_of(row, seeds, yardsticks.box),
            "cost": cost[name],
        }
    missing = [row.name for row in table.rows if row.name not in rows]
    described = truth and describe_truth(truth)
    return Measures(table.name, used[0].objectives, against, described, told, missing)


def _check_alike(table: Table, runs: Sequence[StoredRun]) -> None:
    """Raises InputError for runs of other objectives, training rows or prompts than the first."""
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("objectives are", first.objectives, run.objectives),
            ("held-out prompts are", first.prompts, run.prompts),
            ("frame of training rows is", first.frame.to_dict(), run.frame.to_dict()),
            ("box of training rows is", first.box.to_dict(), run.box.to_dict()),
        ):
            if ours != theirs:
                raise InputError(
                    f"table {table.name!r}: the {what} {theirs} in the run {run.name!r} of seed "
                    f"{run.seed}, and {ours} in {first.name!r} of seed {first.seed}; only what is "
                    "measured alike goes into one table"
                )


def _differences(
    name: str, against: str, rows: Mapping[str, RowRuns], measures: Any, found: dict[str, Measured]
) -> dict[str, Any]:
    """To another row, over the seeds that both have."""
    if name == against or against not in rows:
        return {}
    seeds = [seed for seed in rows[name].families if seed in rows[against].families]
    if not seeds:
        return {}
    ours = found if seeds == list(rows[name].families) else measures(name, seeds)
    theirs = measures(against, seeds)
    return {
        key: _summary(
            Measured(ours[key].value - theirs[key].value, ours[key].drawn - theirs[key].drawn)
        )
        for key in ours
        if key in theirs
    }


def _summary(measured: Measured) -> dict[str, Any]:
    return {"value": measured.value, "interval": interval(measured.drawn)}


def model_summaries_of(row: RowRuns, seeds: Sequence[int], box: Any) -> list[dict[str, Any]]:
    """Mean rewards, achievement and win rates of each model, with intervals."""
    runs = [[model.answers for model in row.families[seed]] for seed in seeds]
    bases = [row.bases[seed].answers for seed in seeds]
    draws = resample(len(runs[0][0].rewards), len(runs))
    kept = ("label", "preference", "mean_rewards", "interval", "achievement",
            "achievement_interval", "win_rate", "win_rate_interval", "num_tokens", "truncated",
            "collapse")  # fmt: skip
    summaries = model_summaries(runs, bases, box, draws)
    return [{name: summary[name] for name in kept} for summary in summaries]


def _cost(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Of one run, the mean over seeds; seconds by step."""
    if not runs:
        return {}
    steps = [record for run in runs for record in run.cost.values()]
    counts = {
        count: sum(record["cost"].get(count, 0) for record in steps) / len(runs) for count in COSTS
    }
    seconds: dict[str, float] = {}
    for run in runs:
        for step, record in run.cost.items():
            seconds[step] = seconds.get(step, 0) + record["seconds"] / len(runs)
    devices = sorted({f"{record['num_devices']} × {record['device']}" for record in steps})
    return counts | {"seconds": seconds, "devices": devices}


def _csv_rows(table: Measures) -> Iterator[dict[str, Any]]:
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


def markdown(tables: Sequence[Measures]) -> str:
    """For each table what was measured, the differences, and what it cost."""
    return "\n".join([NOTE, *(line for table in tables for line in _markdown_lines(table))])


def _markdown_lines(table: Measures) -> Iterator[str]:
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
    yield from _table(
        ["", "runs", *shown.values()],
        {
            name: [str(row["num_runs"]), *(_cell(row["measures"].get(key)) for key in shown)]
            for name, row in table.rows.items()
        },
    )
    yield f"Above {table.against}, over the seeds of both:"
    yield ""
    yield from _table(
        ["", *shown.values()],
        {
            name: [_cell(row["differences"].get(key), "+") for key in shown]
            for name, row in table.rows.items()
            if row["differences"]
        },
    )
    yield from _table(
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


def _table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for name, cells in rows.items():
        yield "| " + " | ".join([name, *cells]) + " |"
    yield ""


def _cell(value: Mapping[str, Any] | None, sign: str = "") -> str:
    if value is None:
        return ""
    texts = [f"{number:{sign}.3f}" for number in (value["value"], *value["interval"])]
    mean, low, high = (text.replace("-", "\u2212") for text in texts)
    return f"{mean} [{low}, {high}]"


def _plot(path: Path, tables: Sequence[Measures]) -> None:
    """A PNG: for each table and pair of objectives, mean rewards of the rows, and the truth."""
    panels = [
        partial(_draw_table, table, pair)
        for table in tables
        for pair in itertools.combinations(range(len(table.objectives)), 2)
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes(draw(panels, min(len(panels), 3)))


def _draw_table(table: Measures, pair: tuple[int, int], axes: Axes) -> None:
    draw_truth(axes, {"truth": table.truth or {}})
    for number, (name, row) in enumerate(table.rows.items()):
        points, bars = points_with_bars(row["models"], pair)
        preferences = [model["preference"] for model in row["models"]]
        line = "none"
        if len(table.objectives) == 2 and None not in preferences:  # they lie on one curve
            line = "-"
            order = np.argsort(np.array(preferences)[:, 0], kind="stable")
            points, bars = points[order], bars[:, order]
        axes.errorbar(
            *points.T, xerr=bars[..., 0], yerr=bars[..., 1], ls=line, lw=1.2, elinewidth=0.7,
            color=OBJECTIVE_COLOURS[number % len(OBJECTIVE_COLOURS)],
            marker=MARKERS[number % len(MARKERS)], ms=5, mfc="white", label=name,
        )  # fmt: skip
    x, y = (short_name(table.objectives[index]) for index in pair)
    axes.set_xlabel(f"{x} (reward) \u2192 better")
    axes.set_ylabel(f"{y} (reward) \u2192 better")
    axes.set_title(f"Mean rewards: {table.name}")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=2)
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
