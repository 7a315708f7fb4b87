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

from paretohqd_jax.files import atomic_path
from paretohqd_jax.pareto import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panel = Callable[[Axes], None]

MAX_CLOUD_POINTS = 20_000  # more cannot be told apart; an even sample of the rows is drawn
PANEL_INCHES = (5.2, 4.6)  # small, so that the type stays readable on a phone
DOTS_PER_INCH = 180

INK, SOFT_INK, CLOUD, POOL = "#1d2430", "#5f6b7a", "#d3d9e0", "#8c98a6"
# Okabe and Ito's palette, told apart with any colour vision: one hue per objective.
OBJECTIVE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
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
}


def plot_panels(path: str | os.PathLike[str], panels: Sequence[Panel], num_objectives: int) -> None:
    """Writes a PNG: side by side for two objectives, else three in a row."""
    num_columns = len(panels) if num_objectives == 2 else min(len(panels), 3)
    with atomic_path(path) as temporary:
        temporary.write_bytes(draw(panels, num_columns))


def draw(panels: Sequence[Panel], num_columns: int = 1) -> bytes:
    """The panels, row by row, as the bytes of a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_rows = -(-len(panels) // num_columns)
    with matplotlib.rc_context(matplotlib.rcParamsDefault | STYLE):
        size = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows)
        figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        canvas = FigureCanvasAgg(figure)
        for index, panel in enumerate(panels):
            panel(figure.add_subplot(num_rows, num_columns, index + 1))
        png = io.BytesIO()
        # Without the version of matplotlib, which it writes by default.
        canvas.print_png(png, metadata={"Software": None})
    return png.getvalue()


def preference_colours(preferences: np.ndarray) -> np.ndarray:
    """One colour per preference, RGB `[num_preferences, 3]` in [0, 1].

    Two objectives: along a ramp of rising lightness by the weight of the first. More: a mix of one
    hue per objective by weight; the axes bear the hues.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    preferences = np.asarray(preferences, dtype=np.float64)
    if preferences.shape[1] == 2:
        return colormaps["plasma"](0.05 + 0.75 * preferences[:, 0])[:, :3]
    hues = itertools.cycle([to_rgb(colour) for colour in OBJECTIVE_COLOURS])
    mixed = preferences @ np.array(list(itertools.islice(hues, preferences.shape[1])))
    return np.clip(mixed, 0, 1)


def model_colours(preferences: Sequence[Sequence[float] | None]) -> np.ndarray:
    """One colour per model, RGB `[num_models, 3]` in [0, 1]: that of its preference.

    Where one has none, all have colours of their own in place of it.
    """
    from matplotlib.colors import to_rgb

    if any(preference is None for preference in preferences):
        hues = itertools.cycle([to_rgb(colour) for colour in OBJECTIVE_COLOURS])
        return np.array(list(itertools.islice(hues, len(preferences))))
    return preference_colours(np.array(preferences))


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
    _draw_key(axes, objectives, pair)


def _rays(preferences: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Both ends of each ray inside the box: `[num_preferences, 2, num_objectives]`."""
    gaps = 1 - np.asarray(preferences, dtype=np.float64)
    until_edge = gaps / np.maximum(gaps.max(axis=1, keepdims=True), 1e-12)
    starts = np.broadcast_to(high, gaps.shape)
    return np.stack([starts, high - until_edge * (high - low)], axis=1)


def _draw_models(
    evaluation: Mapping[str, Any], rewards: np.ndarray, pair: tuple[int, int], axes: Axes
) -> None:
    objectives, fronts = evaluation["objectives"], evaluation["fronts"]
    _draw_cloud(axes, rewards[:, pair], "scored rows")
    draw_truth(axes, evaluation)
    spans = []
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
        numbers = [str(number) for number in range(1, 1 + len(points))]
        if last or not with_preferences:
            labels = [model["label"] for model in front["models"]]
            _annotate(axes, points, numbers if with_preferences else labels)
    base, bars = points_with_bars([evaluation["base"]], pair)
    spans += [base - bars[0], base + bars[1]]
    axes.errorbar(
        *base.T, xerr=bars[..., 0], yerr=bars[..., 1], color=INK, elinewidth=0.9, zorder=5
    )
    axes.plot(*base.T, "*", ms=15, color=INK, mec="white", mew=0.9, label="base model", zorder=6)
    _zoom(axes, np.concatenate(spans))
    _finish(axes, objectives, pair, "Mean rewards on held-out prompts")
    if keyed:
        _draw_key(axes, objectives, pair)


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


def _annotate(axes: Axes, points: np.ndarray, texts: Sequence[str]) -> None:
    """Writes beside each model its number in the tables of the report, or its label."""
    from matplotlib.patheffects import withStroke

    for text, point in zip(texts, points, strict=True):
        axes.annotate(
            text,
            point,
            (7, 6),
            textcoords="offset points",
            fontsize=8.5,
            zorder=7,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _draw_cloud(axes: Axes, points: np.ndarray, label: str) -> None:
    step = -(-len(points) // MAX_CLOUD_POINTS)
    axes.plot(*points[::step].T, "o", ms=2.6, color=CLOUD, mew=0, zorder=1)
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


def _draw_key(axes: Axes, objectives: Sequence[str], pair: tuple[int, int]) -> None:
    """What the colours of preferences mean."""
    if len(objectives) == 2:
        _draw_colour_scale(axes, f"weight of {short_name(objectives[pair[0]])}")
    else:
        for spine, index in zip(("bottom", "left"), pair, strict=True):
            colour = OBJECTIVE_COLOURS[index % len(OBJECTIVE_COLOURS)]
            axes.spines[spine].set(color=colour, linewidth=3)


def _draw_colour_scale(axes: Axes, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    weights = np.linspace(0, 1, 256)
    ramp = ListedColormap(preference_colours(np.stack([weights, 1 - weights], axis=1)))
    bar = axes.figure.colorbar(ScalarMappable(cmap=ramp), ax=axes, shrink=0.6, aspect=26, pad=0.02)
    bar.set_label(label, fontsize=8.5)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def short_name(objective: str) -> str:
    """What fits on an axis: "package.module:function" without its module, cut if still long."""
    name = objective.rsplit(":", 1)[-1]
    return name if len(name) <= 24 else f"{name[:23]}\u2026"


def title(family: str) -> str:
    """The name as a reader sees it: "stage 1" for "stage1"."""
    name = family.rstrip("0123456789")
    return f"{name} {family[len(name) :]}".strip()
