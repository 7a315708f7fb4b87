"""The colours of preferences, and keys that say what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision: one hue per objective.
OBJECTIVE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
PALER = 0.9  # the share of white that the palette tends to
KEY_PIXELS = 96  # of a side of the triangle


def objective_hues(num_objectives: int) -> np.ndarray:
    """RGB `[num_objectives, 3]` in [0, 1]; beyond the palette its hues come again, ever paler."""
    from matplotlib.colors import to_rgb

    hues = np.array([to_rgb(colour) for colour in OBJECTIVE_COLOURS])
    rounds, numbers = np.divmod(np.arange(num_objectives), len(hues))
    white = PALER * (rounds / (1 + rounds))[:, None]
    return paler(hues[numbers], white)


def paler(colours: np.ndarray, white: np.ndarray) -> np.ndarray:
    """RGB colours of which a share is white."""
    return colours + white * (1 - colours)


def preference_colours(preferences: np.ndarray) -> np.ndarray:
    """One colour per preference, RGB `[num_preferences, 3]` in [0, 1].

    Two objectives: along a ramp of rising lightness by the weight of the first. More: a mix of one
    hue per objective by weight.
    """
    from matplotlib import colormaps

    preferences = np.asarray(preferences, dtype=np.float64)
    if preferences.shape[1] == 2:
        return colormaps["plasma"](0.05 + 0.75 * preferences[:, 0])[:, :3]
    return np.clip(preferences @ objective_hues(preferences.shape[1]), 0, 1)


def model_colours(preferences: Sequence[Sequence[float] | None]) -> np.ndarray:
    """One colour per model, RGB `[num_models, 3]` in [0, 1]: that of its preference.

    Where one has none, all have colours of their own in place of it.
    """
    if any(preference is None for preference in preferences):
        return objective_hues(len(preferences))
    return preference_colours(np.array(preferences))


def draw_key(axes: Axes, names: Sequence[str], pair: tuple[int, int]) -> None:
    """What the colours of preferences mean; `names` are those of all objectives.

    Two have a scale beside the axes, three a triangle; of more, the spines bear the hues.
    """
    if len(names) == 2:
        _draw_scale(axes, f"weight of {names[0]}")
        return
    for spine, index in zip(("bottom", "left"), pair, strict=True):
        axes.spines[spine].set(color=objective_hues(len(names))[index], linewidth=3)
    if len(names) == 3:
        _draw_triangle(axes, names)


def _draw_scale(axes: Axes, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    weights = np.linspace(0, 1, 256)
    ramp = ListedColormap(preference_colours(np.stack([weights, 1 - weights], axis=1)))
    bar = axes.figure.colorbar(ScalarMappable(cmap=ramp), ax=axes, shrink=0.6, aspect=26, pad=0.02)
    bar.set_label(label, fontsize=8.5)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _draw_triangle(axes: Axes, names: Sequence[str]) -> None:
    """All preferences between three objectives by their colours, outside the axes."""
    right, up = np.meshgrid(np.linspace(0, 1, KEY_PIXELS), np.linspace(0, 1, KEY_PIXELS))
    # The corners lie at (0, 0), (1, 0) and (1/2, 1).
    weights = np.stack([1 - right - up / 2, right - up / 2, up], axis=-1)
    inside = (weights >= 0).all(axis=-1, keepdims=True)
    colours = preference_colours(np.maximum(weights, 0).reshape(-1, 3)).reshape(*right.shape, 3)
    key = axes.inset_axes((1.06, 0.62, 0.22, 0.2), label="key")
    key.imshow(np.concatenate([colours, inside], axis=-1), origin="lower", extent=(0, 1, 0, 1),
               aspect="auto", interpolation="none")  # fmt: skip
    key.set_axis_off()
    corners = (
        (0, -0.08, "left", "top"),
        (1, -0.3, "right", "top"),
        (0.5, 1.06, "center", "bottom"),
    )
    for name, (x, y, across, upright) in zip(names, corners, strict=True):
        key.text(x, y, name, ha=across, va=upright, fontsize=7.5, transform=key.transAxes)
