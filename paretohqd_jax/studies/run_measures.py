"""What is measured of the rows of a study's table, with draws: of prompts, and of seeds.

All rows are measured on the same draws, so that differences between rows are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from paretohqd_jax.evaluation.bootstrap import Resamples, resample
from paretohqd_jax.evaluation.frames import min_max_frame
from paretohqd_jax.evaluation.front import union_front
from paretohqd_jax.evaluation.responses import mean_points, rewards_of, run_points
from paretohqd_jax.evaluation.single_answers import achievements, prompt_hypervolumes
from paretohqd_jax.evaluation.steering import inner_products, kendall, steerability
from paretohqd_jax.evaluation.summaries import Yardsticks, dominated_share, mean_hypervolume
from paretohqd_jax.evaluation.truth import Measured, Truth, truth_measures
from paretohqd_jax.pareto import generational_distance, igd_plus, spacing, sparsity
from paretohqd_jax.policies import preferences_of
from paretohqd_jax.studies.stored import StoredModel, StoredRun

# Of many fronts `[num_fronts, num_models, num_objectives]` and a union front, in float32.
INDICATORS: dict[str, Callable[[Any, Any], Any]] = {
    "igd_plus": jax.jit(jax.vmap(partial(igd_plus, validate=False), (0, None))),
    "generational_distance": jax.jit(
        jax.vmap(partial(generational_distance, validate=False), (0, None))
    ),
    "spacing": jax.jit(jax.vmap(lambda front, union: spacing(front, validate=False), (0, None))),
    "sparsity": jax.jit(jax.vmap(lambda front, union: sparsity(front, validate=False), (0, None))),
}


class RowRuns(NamedTuple):
    """A row of a table: its family of each run, and the base models; both by seed."""

    families: Mapping[int, Sequence[StoredModel]]
    bases: Mapping[int, StoredModel]


def yardsticks_of(runs: Sequence[StoredRun], rows: Sequence[RowRuns]) -> Yardsticks:
    """What all rows of a table are held against; frames and boxes are equal in all runs."""
    families = [family for row in rows for family in row.families.values()]
    points = np.concatenate([mean_points([[m.answers for m in family]]) for family in families])
    min_max = min_max_frame(points, "least and greatest mean rewards of all models of the table")
    return Yardsticks([runs[0].frame, min_max], runs[0].box, union_front(points))


def measures_of(
    row: RowRuns, seeds: Sequence[int], yardsticks: Yardsticks, truth: Truth | None
) -> dict[str, Measured]:
    """Every measure of a row by its name, the mean over the runs of these seeds.

    Measures by objective are called NAME/NUMBER, from 0. Those by preference are left out where
    policies have none.
    """
    stored = [row.families[seed] for seed in seeds]
    runs = [[model.answers for model in family] for family in stored]
    draws = resample(len(runs[0][0].rewards), len(runs))
    found = _of_points(runs, yardsticks, draws) | _of_answers(stored, row, seeds, draws)
    prompt_volumes = prompt_hypervolumes(yardsticks.frames[0], rewards_of(runs))
    found["prompt_hypervolume"] = _mean(prompt_volumes, draws)
    found |= _by_preference(runs, yardsticks, draws)
    if truth is not None:
        told = truth_measures(truth, runs, yardsticks.box, draws)
        found |= {name: measured for name, measured in told.items() if measured is not None}
    return found


def _of_points(
    runs: Sequence[Sequence[Any]], yardsticks: Yardsticks, draws: Resamples
) -> dict[str, Measured]:
    """Of mean rewards."""
    points, drawn = run_points(runs, draws)
    found = {}
    for frame in yardsticks.frames:
        value = mean_hypervolume(frame, points).value
        found[f"hypervolume ({frame.name})"] = Measured(value, frame.mean_hypervolumes(drawn))
    min_max = yardsticks.frames[-1]
    union = min_max.normalised(yardsticks.union_front)
    scaled, drawn_scaled = min_max.normalised(points), min_max.normalised(drawn)
    for name, indicator in INDICATORS.items():
        over_runs = indicator(scaled, union).mean()
        of_draws = indicator(drawn_scaled.reshape(-1, *scaled.shape[1:]), union)
        by_draw = np.asarray(of_draws).reshape(drawn.shape[:2]).mean(axis=1)
        found[name] = Measured(float(over_runs), by_draw)
    shares = [dominated_share(run) for run in points]
    by_run = np.array(shares)[draws.seeds].mean(axis=1)
    return found | {"dominated_share": Measured(float(np.mean(shares)), by_run)}


def _of_answers(
    stored: Sequence[Sequence[StoredModel]], row: RowRuns, seeds: Sequence[int], draws: Resamples
) -> dict[str, Measured]:
    """Of answers and texts, means over models too."""
    runs = [[model.answers for model in family] for family in stored]
    rewards = rewards_of(runs)
    bases = rewards_of([[row.bases[seed].answers] for seed in seeds])
    wins = (rewards > bases) + (rewards == bases) / 2
    facts = {
        "collapsed": [[[cause != "" for cause in m.causes] for m in run] for run in runs],
        "truncated": [[m.truncated for m in run] for run in runs],
        "num_tokens": [[m.num_tokens for m in run] for run in runs],
    }
    found = {name: _mean(np.array(values, float), draws) for name, values in facts.items()}
    for number in range(rewards.shape[-1]):
        found[f"mean_reward/{number}"] = _mean(rewards[..., number], draws)
        found[f"win_rate/{number}"] = _mean(wins[..., number], draws)
    distinct = np.array([[model.distinct for model in family] for family in stored]).mean(axis=1)
    for number, name in enumerate(("distinct_1", "distinct_2")):
        by_run = distinct[:, number]
        found[name] = Measured(float(by_run.mean()), by_run[draws.seeds].mean(axis=1))
    return found


def _by_preference(
    runs: Sequence[Sequence[Any]], yardsticks: Yardsticks, draws: Resamples
) -> dict[str, Measured]:
    preferences = preferences_of([model.policy for model in runs[0]])
    if preferences is None or len(preferences) < 2:
        return {}
    points, drawn = run_points(runs, draws)
    z_score, box = yardsticks.frames[0], yardsticks.box
    achieved = achievements(preferences, rewards_of(runs), box.low, box.high)
    products = inner_products(preferences, z_score.normalised(points))
    drawn_products = inner_products(preferences, z_score.normalised(drawn)).mean(axis=1)
    found = {
        "achievement": _mean(achieved, draws),
        "inner_product": Measured(float(products.mean()), drawn_products),
    }
    for name, measure in (("steerability", steerability), ("kendall", kendall)):
        values, samples = measure(preferences, points), measure(preferences, drawn)
        for number in range(values.shape[-1]):
            found[f"{name}/{number}"] = Measured(
                float(values[:, number].mean()), samples[..., number].mean(axis=1)
            )
    return found


def _mean(values: np.ndarray, draws: Resamples) -> Measured:
    """Of values `[num_runs, ..., num_prompts]` over all there are."""
    drawn = draws.means(values[..., None])
    means = drawn.reshape(len(drawn), -1).mean(axis=1)
    return Measured(float(values.mean(dtype=np.float64)), means)
