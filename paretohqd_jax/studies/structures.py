"""A study of preference structures: does MOPO find the constrained optimum, and what front is it?

A policy is a table of a few responses (see `constraints.tabular`). For each structure of pairwise
preferences, thresholds sweep from what the unconstrained optimum has of the secondary objectives to
nearly all that can be had; at each the trained policy is compared with the optimum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict

from paretohqd_jax.config import check_config
from paretohqd_jax.constraints.tabular import constraint_values, problem, solve, train
from paretohqd_jax.data.rows import write_table
from paretohqd_jax.files import write_json
from paretohqd_jax.pipeline import Output, Run
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.studies.plots import draw_front, finish_fronts, plot_fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = ("trace", "report")
TABLE = "table.md"
# Of the way from the unconstrained policy's values to those of the largest multipliers.
LAST_SHARE = 0.9
NOTE = """\
*Error*: largest difference of a probability between the trained policy and the optimum, over all
thresholds. *Violation*: how far the worst constraint's bound stays below its threshold. *λ*: least
and largest multiplier at the optima. *Primary*, *secondary*: how often the optimum's answer is
preferred to one of the reference, from the loosest to the tightest threshold.
"""


@dataclass(frozen=True)
class Front:
    """What came out for one structure and number of objectives; a point for each threshold.

    Attributes:
      structure: its name.
      objectives: `[num_objectives]` names.
      thresholds, multipliers: of the optimum, `[num_thresholds, num_secondary]`.
      optimum, trained: the policies' win rates, `[num_thresholds, num_objectives]`.
      errors: of the trained policies' probabilities, `[num_thresholds]`.
      violations: of their constraints, 0 where there is none, `[num_thresholds]`.
    """

    structure: str
    objectives: Sequence[str]
    thresholds: np.ndarray
    multipliers: np.ndarray
    optimum: np.ndarray
    trained: np.ndarray
    errors: np.ndarray
    violations: np.ndarray


def check(config: ConfigDict) -> None:
    """Raises InputError for an option that is not valid."""
    check_config(config)


def align(config: ConfigDict, run: Run) -> Path:
    """Runs the study and returns its table, which another table and a plot lie beside."""
    options = config.to_dict()
    mopo = options.pop("mopo")
    del options["method"]
    traced = run.step("trace", "fronts.json", trace, **options, mopo=mopo)
    return run.step("report", "study", report, traced).path / TABLE


def preference_probabilities(structure: str, num_objectives: int, num_responses: int) -> jax.Array:
    """How often each objective prefers each response to each: 1, 0, or ½ where it does not decide.

    The primary objective ranks the responses. The secondary ones
    `total_order`: agree; `partial_order`: rank them from another place on and around, so that two
    chains conflict; `antichain`: rank them in reverse, so that every pair conflicts;
    `incomparable`: reverse the pairs of odd or of even places and leave all others undecided;
    `cyclic`: have no ranks, every response beats the next ones of a circle, whose order is another
    for each objective.

    Returns:
      float32 `[num_objectives, num_responses, num_responses]`; transposed pairs sum to 1.
    """
    ranks = np.arange(num_responses)
    difference = ranks[:, None] - ranks[None, :]

    def secondary(number: int) -> np.ndarray:
        if structure == "total_order":
            return np.sign(difference)
        if structure == "partial_order":
            rolled = np.roll(ranks, number * num_responses // (num_objectives + 1))
            return np.sign(rolled[:, None] - rolled[None, :])
        if structure == "antichain":
            return -np.sign(difference)
        if structure == "incomparable":
            return np.where(
                (difference % 2 == 0) & (ranks % 2 == number % 2), -np.sign(difference), 0
            )
        places = np.argsort(np.argsort(ranks % number, kind="stable"))
        ahead = (places[None, :] - places[:, None]) % num_responses
        return np.sign(num_responses - 2 * ahead) * (ahead != 0)

    signs = np.stack([np.sign(difference), *map(secondary, range(1, num_objectives))])
    return jnp.asarray((1 + signs) / 2, jnp.float32)


def trace(
    path: Path,
    scratch: Path,
    *,
    structures: Sequence[str],
    num_objectives: Sequence[int],
    num_responses: int,
    num_thresholds: int,
    mopo: dict[str, Any],
) -> None:
    """Solves and trains at every threshold of every structure. Leaves a list of fronts."""
    cases = [(structure, number) for number in num_objectives for structure in structures]
    fronts = []
    with progress_bar(len(cases), "tracing fronts", "front") as bar:
        for structure, number in cases:
            preferences = preference_probabilities(structure, number, num_responses)
            found = jax.tree.map(
                lambda array: np.asarray(array).tolist(),
                _trace(preferences, num_thresholds=num_thresholds, **mopo),
            )
            fronts.append({"structure": structure, **found})
            bar.update()
    write_json(path, fronts)


@partial(jax.jit, static_argnames=("num_thresholds", "num_steps"))
def _trace(
    preferences: jax.Array,
    *,
    num_thresholds: int,
    tau: float,
    epsilon: float,
    max_multiplier: float,
    **training: Any,
) -> dict[str, jax.Array]:
    """The arrays of a front, from `preferences [num_objectives, responses, responses]`."""
    # Good responses are rare under the reference.
    reference = jax.nn.softmax(-0.3 * jnp.arange(preferences.shape[1], dtype=jnp.float32))
    task = problem(preferences, reference, tau, epsilon)
    num_secondary = len(preferences) - 1
    least = constraint_values(task, jnp.zeros(num_secondary))
    most = constraint_values(task, jnp.full(num_secondary, max_multiplier))
    shares = jnp.linspace(0, LAST_SHARE, num_thresholds)[:, None]
    thresholds = least + shares * (most - least)

    def at(thresholds: jax.Array) -> dict[str, jax.Array]:
        best = solve(task, thresholds, max_multiplier)
        trained, _ = train(task, thresholds, **training)
        short = thresholds - constraint_values(task, trained.multipliers)
        wins = preferences @ reference
        return {
            "thresholds": thresholds,
            "multipliers": best.multipliers,
            "optimum": wins @ best.policy,
            "trained": wins @ trained.policy,
            "errors": jnp.max(jnp.abs(trained.policy - best.policy)),
            "violations": jnp.maximum(jnp.max(short), 0),
        }

    return jax.lax.map(at, thresholds)


def report(path: Path, scratch: Path, traced: Output) -> None:
    """Writes the tables, for people and for programs, and the plot."""
    fronts = [_front(**found) for found in json.loads(traced.path.read_text())]
    write_table(path / "table.csv", pa.Table.from_pylist([*_csv_rows(fronts)]))
    (path / TABLE).write_text("\n".join([NOTE, *_markdown_lines(fronts), ""]))
    plot_fronts(path / "front.png", fronts, _draw)


def _front(structure: str, optimum: list, **arrays: list) -> Front:
    names = ["primary", *(f"secondary {number}" for number in range(1, len(optimum[0])))]
    arrays = {name: np.array(values) for name, values in arrays.items()}
    return Front(structure, names, optimum=np.array(optimum), **arrays)


def _csv_rows(fronts: Sequence[Front]) -> Iterator[dict[str, Any]]:
    """A row for each objective of each point; the primary one has no threshold."""
    for front in fronts:
        for point, number in np.ndindex(front.optimum.shape):
            secondary = (point, number - 1)
            yield {
                "structure": front.structure,
                "num_objectives": len(front.objectives),
                "point": point,
                "objective": front.objectives[number],
                "threshold": front.thresholds[secondary] if number else None,
                "multiplier": front.multipliers[secondary] if number else None,
                "optimum": front.optimum[point, number],
                "trained": front.trained[point, number],
                "error": front.errors[point],
                "violation": front.violations[point],
            }


def _markdown_lines(fronts: Sequence[Front]) -> Iterator[str]:
    yield "| structure | objectives | error | violation | λ | primary | secondary |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for front in fronts:
        ends = front.optimum[[0, -1]]
        secondary = "; ".join(f"{low:.3f} to {high:.3f}" for low, high in ends[:, 1:].T)
        yield (
            f"| {front.structure} | {len(front.objectives)} | {front.errors.max():.1e} | "
            f"{front.violations.max():.1e} | {front.multipliers.min():.2f} to "
            f"{front.multipliers.max():.2f} | {ends[0, 0]:.3f} to {ends[1, 0]:.3f} | {secondary} |"
        )


def _draw(front: Front, pair: tuple[int, int], axes: Axes) -> None:
    numbers = [(number, 1 - number) for number in np.linspace(0, 1, len(front.optimum))]
    for number, (name, points) in enumerate(
        {"optimum": front.optimum, "trained": front.trained}.items()
    ):
        points = points[:, pair]
        draw_front(axes, number, name, points, np.zeros((2, *points.shape)), numbers)
    title = f"{front.structure.replace('_', ' ')}, {len(front.objectives)} objectives"
    finish_fronts(axes, front.objectives, pair, title)
    axes.set_xlabel(f"{front.objectives[pair[0]]} (win rate)")
    axes.set_ylabel(f"{front.objectives[pair[1]]} (win rate)")
