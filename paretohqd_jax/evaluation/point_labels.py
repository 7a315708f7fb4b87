"""Names beside the points of a picture, none over another or over a point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

# In typographic points.
FONT_SIZE = 7.5
POINT_RADIUS = 5.0
DISTANCES = (8.0, 14.0, 22.0, 32.0)
DIRECTIONS = np.array([(1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1), (-1, 1), (1, -1)])


def preference_text(preference: Sequence[float]) -> str:
    """A preference as it stands beside a point, such as "0.3/0.7"."""
    return "/".join(f"{weight:.2g}" for weight in preference)


def label_points(axes: Axes, points: np.ndarray, texts: Sequence[str]) -> None:
    """Writes texts beside points, each where there is room, with a line to its point.

    A text that finds no free place near its point is left out. Sizes and limits of the axes must
    not change any more.

    Args:
      axes: to write on.
      points: `[num_points, 2]` in units of the axes.
      texts: `[num_texts]` of the first points; the other points are kept clear of text.
    """
    unit = axes.figure.dpi / 72  # pixels of a typographic point
    middles = axes.transData.transform(points)
    taken = _boxes(middles, np.full(2, 2 * POINT_RADIUS * unit))
    window = axes.get_window_extent().extents
    for text, point, middle in zip(texts, points, middles, strict=False):
        label = _write(axes, text, point)
        size = np.array(label.get_window_extent().size)
        for distance, direction in itertools.product(DISTANCES, DIRECTIONS):
            offset = direction * (unit * distance / np.hypot(*direction) + size / 2)
            [box] = _boxes(middle[None] + offset, size)
            if _is_within(box, window) and not _overlaps(box, taken):
                label.set_position(offset / unit)
                taken = np.concatenate([taken, [box]])
                break
        else:
            label.remove()


def _write(axes: Axes, text: str, point: np.ndarray) -> Annotation:
    from matplotlib.patheffects import withStroke

    return axes.annotate(
        text, point, (0, 0), textcoords="offset points", ha="center", va="center",
        fontsize=FONT_SIZE, zorder=7, path_effects=[withStroke(linewidth=2, foreground="white")],
        arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#5f6b7a", "shrinkA": 0, "shrinkB": 3},
    )  # fmt: skip


def _boxes(middles: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Left, bottom, right and top: `[num_boxes, 4]`."""
    return np.concatenate([middles - size / 2, middles + size / 2], axis=1)


def _is_within(box: np.ndarray, window: np.ndarray) -> bool:
    return bool((box[:2] >= window[:2]).all() and (box[2:] <= window[2:]).all())


def _overlaps(box: np.ndarray, others: np.ndarray) -> bool:
    apart = (box[:2] >= others[:, 2:]) | (box[2:] <= others[:, :2])
    return bool((~apart.any(axis=1)).any())
