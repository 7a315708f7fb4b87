"""How the constraints of a table's runs went, row beside row in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretohqd_jax.evaluation.colours import objective_hues, paler
from paretohqd_jax.evaluation.constraint_curves import constraint_panels
from paretohqd_jax.evaluation.plots import write_picture
from paretohqd_jax.studies.plan import Table
from paretohqd_jax.studies.stored import StoredRun, Trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from paretohqd_jax.evaluation.plots import Panel

NUM_COLUMNS = 4
MOST_WHITE = 0.65  # in the colour of a row's last model


def trajectories_of_rows(table: Table, runs: Sequence[StoredRun]) -> dict[str, Trajectories]:
    """By row, those of its first seed; rows without constraints have none."""
    first = {run.name: run for run in sorted(runs, key=lambda run: run.seed, reverse=True)}
    return {
        row.name: first[row.runs].constraints
        for row in table.rows
        if not row.family and row.runs in first and first[row.runs].constraints
    }


def plot_constraints(path: Path, rows: Mapping[str, Trajectories]) -> None:
    """Writes a PNG: a panel for each quantity, a hue for each row and a shade for each model."""
    layers, named = [], {}
    for (row, told), hue in zip(rows.items(), objective_hues(len(rows)), strict=True):
        white = np.linspace(0, MOST_WHITE, len(told.adapters))[:, None]
        colours = paler(hue, white)
        layers.append(constraint_panels(told.metrics, colours, told.steps))
        named |= {
            f"{row}: {adapter}": colour
            for adapter, colour in zip(told.adapters, colours, strict=True)
        }
    panels = [partial(_draw_all, layered) for layered in zip(*layers, strict=True)]
    write_picture(path, [*panels, partial(_draw_names, named)], NUM_COLUMNS)


def _draw_all(layers: Sequence[Panel], axes: Axes) -> None:
    for layer in layers:
        layer(axes)


def _draw_names(named: Mapping[str, np.ndarray], axes: Axes) -> None:
    for name, colour in named.items():
        axes.plot([], [], color=colour, lw=2, label=name)
    axes.legend(loc="center")
    axes.set_axis_off()
