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
        partial(_draw_losses, stack, values, colours[stack]) for stack, values in losses.items()
    ]


def _draw_losses(stack: str, losses: np.ndarray, colours: np.ndarray, axes: Axes) -> None:
    steps = np.arange(1, losses.shape[1] + 1)
    for values, colour in zip(losses, colours, strict=True):
        axes.plot(steps, values, color=colour, lw=1.1)
    axes.set_title(f"Training loss, {title(stack)}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)
