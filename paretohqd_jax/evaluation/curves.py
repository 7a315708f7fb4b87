"""The training curves of a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from paretohqd_jax.evaluation.plots import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from paretohqd_jax.evaluation.plots import Panel


def loss_panels(losses: Mapping[str, np.ndarray], colours: Mapping[str, np.ndarray]) -> list[Panel]:
    """One panel per stack of adapters: the loss of each over the steps, in its colour.

    Args:
      losses: `[num_adapters, num_steps]` by stack.
      colours: RGB `[num_adapters, 3]` by stack.
    """
    return [
        partial(_draw, f"Training loss, {title(stack)}", "step", "loss", values, colours[stack])
        for stack, values in losses.items()
    ]


def reward_panels(
    rewards: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, np.ndarray]
) -> list[Panel]:
    """One panel per stack and objective: the mean reward of each adapter's answers in training.

    Args:
      rewards: `[num_adapters, num_updates]` by stack and objective.
      colours: RGB `[num_adapters, 3]` by stack.
    """
    return [
        partial(_draw, f"Answers of {title(stack)}", "update", objective, values, colours[stack])
        for stack, by_objective in rewards.items()
        for objective, values in by_objective.items()
    ]


def _draw(
    heading: str, time: str, measure: str, curves: np.ndarray, colours: np.ndarray, axes: Axes
) -> None:
    times = np.arange(1, curves.shape[1] + 1)
    for values, colour in zip(curves, colours, strict=True):
        axes.plot(times, values, color=colour, lw=1.1)
    axes.set_title(heading)
    axes.set_xlabel(time)
    axes.set_ylabel(measure)
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
