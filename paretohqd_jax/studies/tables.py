"""The tables and the plot of a study of selections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from paretohqd_jax.evaluation.bootstrap import CONFIDENCE
from paretohqd_jax.evaluation.frames import Z_SCORE_REFERENCE
from paretohqd_jax.studies.plots import draw_front, finish_fronts, plot_fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Titles of the tables' columns, and what `measure_selection` calls them.
SETS = {
    "pool": "pool_size", "layers": "num_layers", "different rows": "unique_rows",
    "different prompts": "unique_prompts", "overlap": "overlap", "distance": "distance",
    "shortfall": "shortfall",
}  # fmt: skip
FRONTS = {
    "hypervolume": "hypervolume", "gain": "gain", "of the rows": "row_hypervolume",
    "gain of the rows": "row_gain",
}  # fmt: skip
NOTE = f"""\
Means over draws and the interval that holds {100 * CONFIDENCE:.0f} % of them. *Overlap*: rows that
the sets of neighbouring preferences share. *Distance*: of the rows to their preference's ray, in
sides of the box. *Shortfall*: what a row lacks of the ideal point by its preference, the same way;
smaller is better. *Hypervolume*: of the sets' mean rewards, in standard deviations from the mean of
the draw's rows, above {Z_SCORE_REFERENCE:g} in each objective; *of the rows*: that of the selected
rows themselves; *gain*: the difference to the first setting on the same rows. *Steerability*:
Spearman's correlation of weight and mean reward. *Balanced*: mean rewards at the preference of the
most equal weights.
"""


@dataclass(frozen=True)
class Study:
    """What came out for one population.

    Attributes:
      population: its name.
      objectives: `[num_objectives]` names.
      preferences: `[num_preferences, num_objectives]`.
      num_rows: `[num_draws]`.
      settings: what `summarise_draws` returned.
    """

    population: str
    objectives: Sequence[str]
    preferences: np.ndarray
    num_rows: Sequence[int]
    settings: Mapping[str, Mapping[str, Any]]


def csv_table(studies: Sequence[Study]) -> pa.Table:
    """Everything that was measured, one number and its interval per row."""
    return pa.Table.from_pylist([row for study in studies for row in _csv_rows(study)])


def _csv_rows(study: Study) -> Iterator[dict[str, Any]]:
    names = [",".join(f"{weight:.4g}" for weight in row) for row in study.preferences]
    for setting, measures in study.settings.items():
        for measure, value in measures.items():
            means, intervals = np.array(value["mean"]), np.array(value["interval"])
            for index in np.ndindex(means.shape):
                yield {
                    "population": study.population,
                    "setting": setting,
                    "measure": measure,
                    "preference": names[index[0]] if len(index) == 2 else "",
                    "objective": study.objectives[index[-1]] if index else "",
                    "mean": means[index],
                    "low": intervals[0][index],
                    "high": intervals[1][index],
                }


def markdown(studies: Sequence[Study]) -> str:
    """Two tables per population: the sets of rows, and the front of their mean rewards."""
    return "\n".join([NOTE, *(line for study in studies for line in _markdown_lines(study))])


def _markdown_lines(study: Study) -> Iterator[str]:
    num_draws, (least, most) = len(study.num_rows), (min(study.num_rows), max(study.num_rows))
    rows = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    balanced = int(np.linalg.norm(study.preferences - 1 / len(study.objectives), axis=1).argmin())
    yield f"## {study.population}: {num_draws} draws of {rows} rows"
    yield ""
    yield from _table(study, {title: (name,) for title, name in SETS.items()})
    columns: dict[str, tuple] = {title: (name,) for title, name in FRONTS.items()}
    for number, name in enumerate(study.objectives):
        columns[f"steerability, {name}"] = ("steerability", number)
    for number, name in enumerate(study.objectives):
        columns[f"balanced, {name}"] = ("mean_rewards", balanced, number)
    yield from _table(study, columns)


def _table(study: Study, columns: Mapping[str, tuple]) -> Iterator[str]:
    """One line per setting; `columns` are measures, each with the place of the value in it."""
    yield " | ".join(["| setting", *columns]) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for setting, measures in study.settings.items():
        cells = []
        for name, *index in columns.values():
            values = (measures[name]["mean"], *measures[name]["interval"])
            mean, low, high = (_number(np.array(value)[*index]) for value in values)
            cells.append(mean if mean == low == high else f"{mean} [{low}, {high}]")
        yield " | ".join([f"| `{setting}`", *cells]) + " |"
    yield ""


def _number(value: float) -> str:
    """Three digits, and all of those before the point; 0 for what rounding errors left."""
    value = round(value, 9) + 0.0
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot_study(path: str | os.PathLike[str], studies: Sequence[Study]) -> None:
    """Writes a PNG: for each population and pair of objectives, the front of each setting."""
    plot_fronts(Path(path), studies, _draw_study)


def _draw_study(study: Study, pair: tuple[int, int], axes: Axes) -> None:
    for number, (name, measures) in enumerate(study.settings.items()):
        points = np.array(measures["mean_rewards"]["mean"])[:, pair]
        low, high = np.array(measures["mean_rewards"]["interval"])[..., pair]
        bars = np.maximum([points - low, high - points], 0)
        draw_front(axes, number, name, points, bars, study.preferences.tolist())
    title = f"Mean rewards of the rows: {study.population}"
    finish_fronts(axes, study.objectives, pair, title)
