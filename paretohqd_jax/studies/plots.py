"""The plots of studies: for each table, the fronts of its rows and what was measured of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.colours import OBJECTIVE_COLOURS
from paretohqd_jax.evaluation.plots import short_name, write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP<>Xp"


def plot_fronts(
    path: Path, tables: Sequence[Any], draw_table: Callable[[Any, tuple[int, int], Axes], None]
) -> None:
    """Writes a PNG: a panel for each table, which has `objectives`, and pair of these."""
    panels = [
        partial(draw_table, table, pair)
        for table in tables
        for pair in itertools.combinations(range(len(table.objectives)), 2)
    ]
    write_picture(path, panels)


def draw_measures(
    axes: Axes,
    measures: Mapping[str, Mapping[str, Mapping[str, Any] | None]],
    label: str,
    title: str,
) -> None:
    """A line for each row of a table, from the top, and on it a point for each measure.

    Args:
      axes: where to draw.
      measures: by title and row, `value` and `interval`, or None where there is none.
      label: of the axis of all measures.
      title: of the table.
    """
    for number, (name, by_row) in enumerate(measures.items()):
        measured = [(height, row) for height, row in enumerate(by_row.values()) if row]
        heights, rows = zip(*measured, strict=True)
        values = np.array([row["value"] for row in rows])
        low, high = np.array([row["interval"] for row in rows]).T
        axes.errorbar(
            values, np.array(heights) + 0.24 * (number - (len(measures) - 1) / 2), ls="none",
            xerr=np.maximum([values - low, high - values], 0), elinewidth=1.1, ms=4.5, mfc="white",
            color=OBJECTIVE_COLOURS[number], marker=MARKERS[number], label=name,
        )  # fmt: skip
        axes.set_yticks(range(len(by_row)), list(by_row))
    axes.set_ylim(axes.get_yticks()[-1] + 0.6, -0.6)
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(measures))
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)


def draw_front(
    axes: Axes,
    number: int,
    name: str,
    points: np.ndarray,
    bars: np.ndarray,
    preferences: Sequence[Sequence[float] | None],
) -> None:
    """The row of a table of that number: its `points [num_models, 2]` and `bars [2, ...]`.

    Of two objectives the models lie on one curve, if they have preferences; it is drawn.
    """
    line = "none"
    if None not in preferences and len(preferences[0]) == 2:
        line = "-"
        order = np.argsort([preference[0] for preference in preferences], kind="stable")
        points, bars = points[order], bars[:, order]
    axes.errorbar(
        *points.T, xerr=bars[..., 0], yerr=bars[..., 1], ls=line, lw=1.2, elinewidth=0.7,
        color=OBJECTIVE_COLOURS[number % len(OBJECTIVE_COLOURS)],
        marker=MARKERS[number % len(MARKERS)], ms=5, mfc="white", label=name,
    )  # fmt: skip


def finish_fronts(
    axes: Axes, objectives: Sequence[str], pair: tuple[int, int], title: str, num_columns: int = 1
) -> None:
    """Says what the axes and the fronts are."""
    x, y = (short_name(objectives[index]) for index in pair)
    axes.set_xlabel(f"{x} (reward) \u2192 better")
    axes.set_ylabel(f"{y} (reward) \u2192 better")
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=num_columns)
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
