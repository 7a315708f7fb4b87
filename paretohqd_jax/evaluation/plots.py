"""The two pictures of a run: what was selected to train on, and what the models then do.

Drawn with matplotlib's objects, without pyplot, so nothing global changes; the same input gives the
same bytes. With more than two objectives there is one panel per pair of them.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from paretohqd_jax.evaluation.colours import draw_key, model_colours, preference_colours
from paretohqd_jax.evaluation.point_labels import label_points, preference_text
from paretohqd_jax.files import atomic_path
from paretohqd_jax.pareto import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panel = Callable[[Axes], Callable[[], None] | None]

MAX_CLOUD_POINTS = 20_000  # more cannot be told apart; an even sample of the rows is drawn
PANEL_INCHES = (5.2, 4.6)  # small, so that the type stays readable on a phone
DOTS_PER_INCH = 180

INK, SOFT_INK, CLOUD, POOL = "#1d2430", "#5f6b7a", "#d3d9e0", "#8c98a6"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # an objective may be called $anything$
    "axes.edgecolor": SOFT_INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 30,
    "xtick.color": SOFT_INK,
    "ytick.color": SOFT_INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "paretohqd_jax",  # else its names are drawn by chance
    "pdf.fonttype": 42,  # text stays text, as journals ask
}
# What is written by default besides the picture: the day, and the version of matplotlib.
METADATA = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Creator": None, "Date": None},
}
SUFFIXES = tuple(f".{kind}" for kind in METADATA)


def plot_panels(path: str | os.PathLike[str], panels: Sequence[Panel], num_objectives: int) -> None:
    """Writes a picture as its suffix says: side by side for two objectives, else three in a row."""
    write_picture(path, panels, len(panels) if num_objectives == 2 else 3)


def write_picture(
    path: str | os.PathLike[str], panels: Sequence[Panel], num_columns: int = 3
) -> None:
    """Writes a picture as its suffix says, of up to so many panels side by side."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(draw(panels, min(len(panels), num_columns), temporary.suffix[1:]))


def draw(panels: Sequence[Panel], num_columns: int = 1, kind: str = "png") -> bytes:
    """The panels, row by row, as the bytes of a PNG, PDF or SVG.

    A panel draws on its axes and may return what is to be done when the sizes of all are known.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_rows = -(-len(panels) // num_columns)
    with matplotlib.rc_context(matplotlib.rcParamsDefault | STYLE):
        size = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows)
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        FigureCanvasAgg(figure)
        last = [
            panel(figure.add_subplot(num_rows, num_columns, index + 1))
            for index, panel in enumerate(panels)
        ]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # what comes last leaves the sizes as they are
        for finish in filter(None, last):
            finish()
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=DOTS_PER_INCH, metadata=METADATA[kind])
    return picture.getvalue()


def selection_panels(
    objectives: Sequence[str], preferences: np.ndarray, rewards: np.ndarray, selection: Selection
) -> list[Panel]:
    """Data, pool, rays from the ideal point and selected rows.

    Args:
      objectives: `[num_objectives]` names.
      preferences: `[num_preferences, num_objectives]`.
      rewards: `[num_rows, num_objectives]` that `selection` was made from.
      selection: what `paretohqd_jax.pareto.select` returned.
    """
    selection = Selection(*(np.asarray(part) for part in selection))
    preferences, rewards = np.asarray(preferences), np.asarray(rewards)
    return [
        partial(_draw_selection, objectives, preferences, rewards, selection, pair)
        for pair in itertools.combinations(range(len(objectives)), 2)
    ]


def model_panels(evaluation: Mapping[str, Any], rewards: np.ndarray) -> list[Panel]:
    """Mean rewards of each front and of the base model, with the data behind them.

    Args:
      evaluation: what `evaluate_fronts` returned.
      rewards: `[num_rows, num_objectives]` of the data.
    """
    return [
        partial(_draw_models, evaluation, np.asarray(rewards), pair)
        for pair in itertools.combinations(range(len(evaluation["objectives"])), 2)
    ]


def _draw_selection(
    objectives: Sequence[str],
    preferences: np.ndarray,
    rewards: np.ndarray,
    selection: Selection,
    pair: tuple[int, int],
    axes: Axes,
) -> None:
    colours = preference_colours(preferences)
    _draw_cloud(axes, rewards[:, pair], "scored rows")
    pool = rewards[selection.ranks >= 0][:, pair]
    axes.plot(*pool.T, "o", ms=3.2, mfc="white", mec=POOL, mew=0.8, label="Pareto pool", zorder=2)
    for ray, colour in zip(_rays(preferences, selection.low, selection.high), colours, strict=True):
        axes.plot(*ray[:, pair].T, color=colour, lw=1.1, alpha=0.75, zorder=3)
    # Ever smaller, so that a row that serves several preferences shows them as rings.
    sizes = np.linspace(5.8, 3.8, len(colours))
    for row_ids, colour, size in zip(selection.row_ids, colours, sizes, strict=True):
        axes.plot(*rewards[row_ids][:, pair].T, "o", ms=size, color=colour, mec="white", mew=0.4)
    axes.plot([], [], "o-", ms=4.6, lw=1.1, color=colours[len(colours) // 2], label="ray and rows")
    ideal = selection.high[list(pair)]
    axes.plot(*ideal, "P", ms=9, color=INK, mec="white", mew=0.8, label="ideal point", zorder=5)
    _finish(axes, objectives, pair, "Rows selected for each preference")
    draw_key(axes, [short_name(name) for name in objectives], pair)


def _rays(preferences: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Both ends of each ray inside the box: `[num_preferences, 2, num_objectives]`."""
    gaps = 1 - np.asarray(preferences, dtype=np.float64)
    until_edge = gaps / np.maximum(gaps.max(axis=1, keepdims=True), 1e-12)
    starts = np.broadcast_to(high, gaps.shape)
    return np.stack([starts, high - until_edge * (high - low)], axis=1)


def _draw_models(
    evaluation: Mapping[str, Any], rewards: np.ndarray, pair: tuple[int, int], axes: Axes
) -> Callable[[], None]:
    objectives, fronts = evaluation["objectives"], evaluation["fronts"]
    _draw_cloud(axes, rewards[:, pair], "scored rows")
    draw_truth(axes, evaluation)
    spans: list[np.ndarray] = []
    named: list[np.ndarray] = []
    others: list[np.ndarray] = []
    texts: list[str] = []
    keyed = False
    for index, (family, front) in enumerate(fronts.items()):
        last = index == len(fronts) - 1
        preferences = [model["preference"] for model in front["models"]]
        with_preferences = None not in preferences
        keyed |= with_preferences
        colours = model_colours(preferences)
        points, bars = points_with_bars(front["models"], pair)
        spans += [points - bars[0], points + bars[1]]
        line = "none"
        if len(objectives) == 2 and with_preferences:  # only then do the models lie on one curve
            line = "-" if last else (0, (4, 2.5))
            order = np.array(preferences)[:, 0].argsort()
            axes.plot(*points[order].T, ls=line, color=SOFT_INK, lw=1.3)
        for point, bar, colour in zip(points, bars.swapaxes(0, 1), colours, strict=True):
            face = colour if last else "white"
            marker = {"marker": "o", "ms": 8.5 if last else 7, "mfc": face, "mec": colour}
            span = {"xerr": bar[:, :1], "yerr": bar[:, 1:]}
            axes.errorbar(*point, **span, color=colour, elinewidth=0.9, mew=1.5, zorder=4, **marker)
        face = INK if last else "white"
        axes.plot(
            [], [], marker="o", ls=line, color=SOFT_INK, mfc=face, mec=INK, label=title(family)
        )
        if last or not with_preferences:
            named.append(points)
            texts += [model_text(model) for model in front["models"]]
        else:
            others.append(points)
    base, bars = points_with_bars([evaluation["base"]], pair)
    spans += [base - bars[0], base + bars[1]]
    axes.errorbar(
        *base.T, xerr=bars[..., 0], yerr=bars[..., 1], color=INK, elinewidth=0.9, zorder=5
    )
    axes.plot(*base.T, "*", ms=15, color=INK, mec="white", mew=0.9, label="base model", zorder=6)
    _zoom(axes, np.concatenate(spans))
    _finish(axes, objectives, pair, f"Mean rewards, bars: {intervals_text(evaluation)}")
    if keyed:
        draw_key(axes, [short_name(name) for name in objectives], pair)
    return partial(label_points, axes, np.concatenate([*named, *others, base]), texts)


def model_text(model: Mapping[str, Any]) -> str:
    """What stands beside the point of a model: its preference, or its label."""
    preference = model["preference"]
    return model["label"] if preference is None else preference_text(preference)


def intervals_text(measured: Mapping[str, Any]) -> str:
    """What bars are, of what `evaluate_fronts` or `compare_fronts` returned."""
    return f"{measured['bootstrap']['confidence']:.0%} intervals"


def draw_truth(axes: Axes, evaluation: Mapping[str, Any]) -> None:
    """The true front of two objectives, where it is known."""
    if evaluation.get("truth", {}).get("curve"):
        curve = np.array(evaluation["truth"]["curve"])
        axes.plot(*curve.T, color=INK, lw=1.0, ls=":", label="true front", zorder=2)


def points_with_bars(
    models: Sequence[Mapping[str, Any]], pair: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean rewards `[num_models, 2]`, and how far intervals reach down and up, `[2, ...]`."""
    means = np.array([model["mean_rewards"] for model in models])[:, pair]
    low, high = np.array([model["interval"] for model in models]).swapaxes(0, 1)[..., pair]
    # A skewed interval may leave the mean out by a hair; a bar of negative length is an error.
    return means, np.maximum([means - low, high - means], 0)


def _draw_cloud(axes: Axes, points: np.ndarray, label: str) -> None:
    step = -(-len(points) // MAX_CLOUD_POINTS)
    axes.plot(*points[::step].T, "o", ms=2.6, color=CLOUD, mew=0, zorder=1, rasterized=True)
    axes.plot([], [], "o", ms=4.6, color=CLOUD, mew=0, label=label)


def _zoom(axes: Axes, points: np.ndarray) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.18 * np.maximum(high - low, 1e-3)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _finish(axes: Axes, objectives: Sequence[str], pair: tuple[int, int], heading: str) -> None:
    x, y = (short_name(objectives[index]) for index in pair)
    axes.set_xlabel(f"{x} (reward) \u2192 better")
    axes.set_ylabel(f"{y} (reward) \u2192 better")
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, columnspacing=1.2, handlelength=1.6
    )
    num_rows = -(-len(legend.get_texts()) // 4)  # of the legend, below the title
    axes.set_title(heading, pad=STYLE["axes.titlepad"] + 16 * (num_rows - 1))
    legend.set_in_layout(False)  # it may reach over the colour scale
    axes.grid(True, color="#eceff3", lw=0.7)
    axes.set_axisbelow(True)


def short_name(objective: str) -> str:
    """What fits on an axis: "package.module:function" without its module, cut if still long."""
    name = objective.rsplit(":", 1)[-1]
    return name if len(name) <= 24 else f"{name[:23]}\u2026"


def title(family: str) -> str:
    """The name as a reader sees it: "round 1" for "round1"."""
    name = family.rstrip("0123456789")
    return f"{name} {family[len(name) :]}".strip()
