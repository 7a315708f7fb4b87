"""How the constraints of a run went: multipliers, bounds and what the weights are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from paretohqd_jax.evaluation.plots import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from paretohqd_jax.evaluation.plots import Panel

# What a panel shows: the beginnings of names of metrics, with the style of their lines.
PANELS = {
    "Multipliers \u03bb": {"multiplier_": "-"},
    "Bounds G, and thresholds b (dashed)": {"bound_": "-", "threshold_": "--"},
    "\u03c7 of the bounds": {"chi_": "-"},
    "Effective sample size, rows": {"sample_size": "-"},
    "KL from the data, nats": {"kl": "-"},
}
WIN_RATE = "win_rate_"  # one panel for each objective


def constraint_panels(
    trajectories: Mapping[str, np.ndarray], colours: np.ndarray, steps: np.ndarray | None = None
) -> list[Panel]:
    """The panels of adapters, each in its colour.

    Args:
      trajectories: `[num_adapters, num_times]` by the name of the metric, not a number where one
        does not apply to an adapter.
      colours: RGB `[num_adapters, 3]`.
      steps: `[num_times]`; every one from 1 by default.
    """
    if steps is None:
        steps = np.arange(1, 1 + next(iter(trajectories.values())).shape[1])
    shown = {
        f"Expected win rate, {short_name(name.removeprefix(WIN_RATE))}": {name: "-"}
        for name in trajectories
        if name.startswith(WIN_RATE)
    }
    return [
        partial(_draw, heading, _lines(trajectories, styles), colours, steps)
        for heading, styles in (shown | PANELS).items()
    ]


def _lines(
    trajectories: Mapping[str, np.ndarray], styles: Mapping[str, str]
) -> list[tuple[str, np.ndarray]]:
    """The style of the lines of each metric of a panel, and its values."""
    return [
        (style, values)
        for start, style in styles.items()
        for name, values in trajectories.items()
        if name.startswith(start)
    ]


def _draw(
    heading: str,
    lines: Sequence[tuple[str, np.ndarray]],
    colours: np.ndarray,
    steps: np.ndarray,
    axes: Axes,
) -> None:
    for style, curves in lines:
        for values, colour in zip(curves, colours, strict=True):
            axes.plot(steps, values, ls=style, color=colour, lw=1.1)
    axes.set_title(heading)
    axes.set_xlabel("step")
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
