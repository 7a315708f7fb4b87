"""What is wrong with the rewards of a data set, before anything is trained on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from paretohqd_jax.evaluation.plots import CLOUD, INK, write_picture
from paretohqd_jax.evaluation.steering import spearman
from paretohqd_jax.pareto import non_dominated_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Limits that samples of the usual distributions (normal, uniform, exponential, Laplace) keep.
FEW_VALUES = 0.2  # of the different rows: fewer values than that are quantised
SATURATED = 0.2  # of the rows, in a hundredth of the range at one of its ends
REPEATED = 0.1  # of the rows
CENTRE = 0.35  # of the range: less for the central 99 % of the rows, and outliers make the range
SAME_ORDER = 0.95  # Spearman's correlation of two objectives
FEW_ROWS = 50  # too few to tell


def summary_lines(rewards: np.ndarray, objectives: Sequence[str]) -> list[str]:
    """Range, spread, ties and correlations of the objectives, and the sizes of layers.

    Args:
      rewards: `[num_rows, num_objectives]`.
      objectives: their names.
    """
    width = max(map(len, objectives))
    heads = ("min", "1 %", "median", "99 %", "max", "mean", "std", "distinct")
    lines = [f"{'':{width}}  {' '.join(f'{head:>10}' for head in heads)}"]
    for name, values in zip(objectives, rewards.T, strict=True):
        numbers = (*np.quantile(values, [0, 0.01, 0.5, 0.99, 1]), values.mean(), values.std())
        columns = " ".join(f"{number:10.4g}" for number in numbers)
        lines.append(f"{name:{width}}  {columns} {np.unique(values).size:10d}")
    lines.append("correlation")
    for name, row in zip(objectives, _correlations(rewards), strict=True):
        lines.append(f"{name:{width}}  {' '.join(f'{value:10.3f}' for value in row)}")
    sizes = np.bincount(np.asarray(non_dominated_rank(rewards)))
    lines.append(
        f"{len(sizes)} non-dominated layers: {', '.join(map(str, sizes[:10]))}"
        f"{', ...' if len(sizes) > 10 else ''} rows"
    )
    return lines


def prompt_lines(
    rewards: np.ndarray, objectives: Sequence[str], prompts: Sequence[str]
) -> list[str]:
    """How much of each objective's variance the prompts make, and what that does to a selection.

    None where no prompt has two responses.
    """
    _, prompt_ids, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return []
    shares = between_prompts(rewards, prompt_ids, counts)
    named = (f"{name} {share:.0%}" for name, share in zip(objectives, shares, strict=True))
    return [
        f"variance between prompts: {', '.join(named)}",
        "the larger that share, the more a selection picks prompts that any answer scores well on, "
        "in place of the better ones among the answers to a prompt",
    ]


def between_prompts(rewards: np.ndarray, prompt_ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The share of each objective's variance that is of the means of prompts, `[num_objectives]`.

    By chance alone it is about the number of prompts over that of rows; 0 without any variance.
    """
    sums = np.stack([np.bincount(prompt_ids, column) for column in rewards.T], axis=1)
    means = (sums / counts[:, None])[prompt_ids]
    total = rewards.var(axis=0)
    return np.where(total > 0, means.var(axis=0) / np.where(total > 0, total, 1), 0.0)


def _correlations(rewards: np.ndarray) -> np.ndarray:
    """`[num_objectives, num_objectives]`; nan where an objective has no spread, as in one row."""
    if len(rewards) < 2:
        return np.full((rewards.shape[1], rewards.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_2d(np.corrcoef(rewards.T))


def reward_warnings(
    rewards: np.ndarray, objectives: Sequence[str], texts: Sequence[object] | None = None
) -> list[str]:
    """What a user should look at, one line each.

    Args:
      rewards: `[num_rows, num_objectives]`, finite.
      objectives: their names.
      texts: `[num_rows]`, what makes two rows the same; without, equal rewards do.

    Returns:
      Warnings of objectives that are constant, quantised or saturated, or whose range is that of a
      few outliers; of data heavy with duplicates; and of objectives that order the rows almost
      alike, or almost the opposite way. None for few rows.
    """
    if len(rewards) < FEW_ROWS:
        return []
    different = np.unique(rewards, axis=0)
    warnings = []
    for name, values, distinct in zip(objectives, rewards.T, different.T, strict=True):
        if np.ptp(values) == 0:
            warnings.append(f"{name}: constant, {values[0]:.4g} in every row; it trades nothing")
        else:
            found = (_quantised(distinct), _saturated(values), _outliers(values))
            warnings += [f"{name}: {problem}" for problem in found if problem]
    num_different = len(different) if texts is None else len(set(texts))
    repeated = 1 - num_different / len(rewards)
    if repeated > REPEATED and not (texts is None and any("quantised" in w for w in warnings)):
        warnings.append(
            f"duplicate-heavy: {100 * repeated:.0f} % of the rows repeat another; they fill the "
            "pool and the selections without telling anything new"
        )
    return warnings + _pairs(rewards, objectives)


def _quantised(values: np.ndarray) -> str:
    """Of the values of different rows, for a row that is there twice is no tie."""
    numbers, counts = np.unique(values, return_counts=True)
    num_values, share = len(numbers), counts.max() / len(values)
    common = numbers[counts.argmax()]
    if num_values > FEW_VALUES * len(values):
        inside = numbers[0] < common < numbers[-1]  # at an end the objective is saturated
        if share <= SATURATED or not inside:
            return ""
        return (
            f"quantised, {100 * share:.0f} % of the rows have the value {common:.4g}; they tie:"
            " the other objectives decide among them"
        )
    return (
        f"quantised, {num_values} different values in {len(values)} different rows; many rows tie: "
        "score again without rounding, or know that the other objectives decide among them"
    )


def _saturated(values: np.ndarray) -> str:
    width = 0.01 * np.subtract(*np.quantile(values, [0.99, 0.01]))
    shares = {
        "lowest": np.mean(values <= values.min() + width),
        "highest": np.mean(values >= values.max() - width),
    }
    end = max(shares, key=shares.get)
    if shares[end] <= SATURATED:
        return ""
    return (
        f"saturated, {100 * shares[end]:.0f} % of the rows are at its {end} value; it does not "
        "tell them apart: take logits instead of probabilities, or another model"
    )


def _outliers(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.005, 0.995])
    centre = (high - low) / np.ptp(values)
    if centre >= CENTRE:
        return ""
    side = "low" if low - values.min() > values.max() - high else "high"
    return (
        f"outlier-driven range, the central 99 % of the rows take up {100 * centre:.0f} % of it "
        f"and {side} outliers most of the rest; remove them, or select with range_scope quantile"
    )


def _pairs(rewards: np.ndarray, objectives: Sequence[str]) -> list[str]:
    warnings = []
    for first, second in itertools.combinations(range(len(objectives)), 2):
        if np.ptp(rewards[:, first]) == 0 or np.ptp(rewards[:, second]) == 0:
            continue
        correlation = spearman(rewards[:, first], rewards[:, second])
        names = f"{objectives[first]} and {objectives[second]}"
        value = f"(Spearman's correlation {correlation:.3f})"
        if correlation > SAME_ORDER:
            warnings.append(f"{names}: near-identical {value}; there is nothing to trade off")
        elif correlation < -SAME_ORDER:
            warnings.append(
                f"{names}: near-opposite {value}; nearly every row is on the front, and one of them"
                " may have the wrong sign"
            )
    return warnings


def plot_rewards(
    path: str | os.PathLike[str], rewards: np.ndarray, objectives: Sequence[str]
) -> None:
    """Writes a PNG: a histogram of each objective, and each two of them against each other."""
    panels = [
        partial(_draw_histogram, name, values)
        for name, values in zip(objectives, rewards.T, strict=True)
    ]
    correlations = _correlations(rewards)
    for first, second in itertools.combinations(range(len(objectives)), 2):
        names, points = (objectives[first], objectives[second]), rewards[:, [first, second]]
        panels.append(partial(_draw_points, names, points, correlations[first, second]))
    write_picture(path, panels)


def _draw_histogram(name: str, values: np.ndarray, axes: Axes) -> None:
    axes.hist(values, bins=_bin_edges(values), color=CLOUD)
    for quantile in (0.005, 0.5, 0.995):
        axes.axvline(np.quantile(values, quantile), color=INK, lw=0.8, ls=":")
    axes.set_xlabel(f"{name} (lines: 0.5, 50 and 99.5 %)")
    axes.set_ylabel("rows")


def _bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of 80 bins, of fewer where float64 has no numbers between them."""
    edges = np.unique(np.linspace(values.min(), values.max(), 81))
    if len(edges) > 1:
        return edges
    margin = max(0.5, np.spacing(np.abs(edges[0])))
    return edges + np.array([-margin, margin])


def _draw_points(
    names: tuple[str, str], points: np.ndarray, correlation: float, axes: Axes
) -> None:
    from matplotlib.colors import LogNorm

    shades = LogNorm(vmin=0.2)  # so that a single row is to be seen
    axes.hexbin(*points.T, gridsize=60, norm=shades, cmap="Greys", mincnt=1, linewidths=0)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(f"correlation {correlation:.2f}")
