"""The fronts of several runs in one picture."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.colours import OBJECTIVE_COLOURS
from paretohqd_jax.evaluation.plots import (
    INK,
    intervals_text,
    model_text,
    plot_panels,
    points_with_bars,
    short_name,
)
from paretohqd_jax.evaluation.point_labels import label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP"
NUM_COLUMNS = 4  # of the legend


def plot_comparison(path: str | os.PathLike[str], comparison: Mapping[str, Any]) -> None:
    """Writes a picture with one panel per pair of objectives, of what `compare_fronts` returned.

    Points are mean rewards, bars the intervals of the bootstrap; base models are stars.
    """
    objectives = comparison["objectives"]
    pairs = itertools.combinations(range(len(objectives)), 2)
    panels = [partial(_draw_fronts, comparison, pair) for pair in pairs]
    plot_panels(path, panels, len(objectives))


def _draw_fronts(
    comparison: Mapping[str, Any], pair: tuple[int, int], axes: Axes
) -> Callable[[], None]:
    fronts = {name: front for name, front in comparison["fronts"].items()
              if name not in comparison["bases"]}  # fmt: skip
    named: list[np.ndarray] = []
    texts: list[str] = []
    for number, (name, front) in enumerate(fronts.items()):
        colour = OBJECTIVE_COLOURS[number % len(OBJECTIVE_COLOURS)]
        points, bars = points_with_bars(front["models"], pair)
        named.append(points)
        texts += [model_text(model) for model in front["models"]]
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
        named.append(base)
        axes.errorbar(
            *base.T, xerr=bars[..., 0], yerr=bars[..., 1], color=INK, ls="none", marker="*",
            ms=14, mec="white", elinewidth=0.8, zorder=5, label=name,
        )  # fmt: skip
    x, y = (short_name(comparison["objectives"][index]) for index in pair)
    axes.set_xlabel(f"{x} (reward) \u2192 better")
    axes.set_ylabel(f"{y} (reward) \u2192 better")
    num_rows = -(-(len(fronts) + len(comparison["bases"])) // NUM_COLUMNS)  # below the title
    heading = f"{comparison['num_prompts']} prompts, bars: {intervals_text(comparison)}"
    axes.set_title(f"Mean rewards on {heading}", pad=12 + 16 * num_rows)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=NUM_COLUMNS, columnspacing=1.2)
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
    return partial(label_points, axes, np.concatenate(named), texts)
