"""The fronts of several runs in one picture."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.plots import (
    INK,
    OBJECTIVE_COLOURS,
    draw,
    points_with_bars,
    short_name,
)
from paretohqd_jax.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP"
NUM_COLUMNS = 4  # of the legend


def plot_comparison(path: str | os.PathLike[str], comparison: Mapping[str, Any]) -> None:
    """Writes a PNG with one panel per pair of objectives, of what `compare_fronts` returned.

    Points are mean rewards, bars the intervals of the bootstrap; base models are stars.
    """
    pairs = itertools.combinations(range(len(comparison["objectives"])), 2)
    panels = [partial(_draw_fronts, comparison, pair) for pair in pairs]
    with atomic_path(path) as temporary:
        temporary.write_bytes(draw(panels, min(len(panels), 3)))


def _draw_fronts(comparison: Mapping[str, Any], pair: tuple[int, int], axes: Axes) -> None:
    fronts = {name: front for name, front in comparison["fronts"].items()
              if name not in comparison["bases"]}  # fmt: skip
    for number, (name, front) in enumerate(fronts.items()):
        colour = OBJECTIVE_COLOURS[number % len(OBJECTIVE_COLOURS)]
        points, bars = points_with_bars(front["models"], pair)
        line = "none"
        preferences = [model["preference"] for model in front["models"]]
        if len(comparison["objectives"]) == 2 and None not in preferences:  # they lie on one curve
            line = "-"
            order = np.argsort(np.array(preferences)[:, 0], kind="stable")
            points, bars = points[order], bars[:, order]
        axes.errorbar(
            *points.T, xerr=bars[..., 0], yerr=bars[..., 1], color=colour, ls=line, lw=1.3,
            elinewidth=0.8, marker=MARKERS[number % len(MARKERS)], ms=6, label=name,
        )  # fmt: skip
    for name, model in comparison["bases"].items():
        base, bars = points_with_bars([model], pair)
        axes.errorbar(
            *base.T, xerr=bars[..., 0], yerr=bars[..., 1], color=INK, ls="none", marker="*",
            ms=14, mec="white", elinewidth=0.8, zorder=5, label=name,
        )  # fmt: skip
    x, y = (short_name(comparison["objectives"][index]) for index in pair)
    axes.set_xlabel(f"{x} (reward) \u2192 better")
    axes.set_ylabel(f"{y} (reward) \u2192 better")
    num_rows = -(-(len(comparison["fronts"]) + 1) // NUM_COLUMNS)  # of the legend, below the title
    heading = f"Mean rewards on {comparison['num_prompts']} held-out prompts"
    axes.set_title(heading, pad=12 + 16 * num_rows)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=NUM_COLUMNS, columnspacing=1.2)
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
