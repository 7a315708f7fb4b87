"""What a selection is worth before anything is trained on it.

A model that learned the rows of its preference by heart would answer like them, so its mean rewards
would be those of the rows. The N sets therefore make a front of their own, measured as that of
models is. It says what models are taught, not what they learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretohqd_jax.evaluation.bootstrap import interval
from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.evaluation.single_answers import achievements
from paretohqd_jax.evaluation.steering import steerability
from paretohqd_jax.pareto import Selection, ray_distance, reward_range


def measure_selection(
    rewards: np.ndarray,
    prompt_ids: np.ndarray,
    preferences: np.ndarray,
    selection: Selection,
    frame: Frame,
) -> dict[str, Any]:
    """What is measured of one selection, JSON-able.

    Args:
      rewards: `[num_rows, num_objectives]`.
      prompt_ids: int `[num_rows]`.
      preferences: `[num_preferences, num_objectives]`.
      selection: of these rows.
      frame: of the hypervolumes, which are estimated beyond the size that `measure_hypervolume`
        states.

    Returns:
      `mean_rewards` of the rows of each preference, `[num_preferences, num_objectives]`, with their
      `hypervolume` and `steerability`; `row_hypervolume`, that of the selected rows themselves;
      `pool_size` in rows and `num_layers`; `unique_rows` and `unique_prompts` of all sets together;
      `overlap`, the rows that the sets of neighbours share (see `neighbours`); `distance` of the
      selected rows to their preference's ray, where the box of the selection has sides of length 1;
      `shortfall`, what single rows lack of the ideal point (see `achievements`, without
      augmentation).
    """
    row_ids, ranks = np.asarray(selection.row_ids), np.asarray(selection.ranks)
    selected = rewards[row_ids]
    points = selected.mean(axis=1)
    unique = np.unique(row_ids)
    distances = [
        ray_distance(rows, preference[None], selection.low, selection.high)
        for rows, preference in zip(selected, preferences, strict=True)
    ]
    achieved = achievements(preferences, selected, *reward_range(rewards), augmentation=0.0)
    shared = [np.intersect1d(row_ids[i], row_ids[j]).size for i, j in neighbours(preferences)]
    return {
        "mean_rewards": points.tolist(),
        "hypervolume": frame.hypervolume(points),
        "steerability": steerability(preferences, points).tolist(),
        "row_hypervolume": frame.hypervolume(rewards[unique]),
        "pool_size": int((ranks >= 0).sum()),
        "num_layers": int(ranks.max()) + 1,
        "unique_rows": int(unique.size),
        "unique_prompts": int(np.unique(prompt_ids[unique]).size),
        "overlap": float(np.mean(shared)),
        "distance": float(np.mean(distances)),
        "shortfall": float(-np.mean(achieved)),
    }


def neighbours(preferences: np.ndarray) -> np.ndarray:
    """The pairs of preferences nearest to each other, int `[num_pairs, 2]`.

    On a grid of two objectives those are the ones that follow each other.
    """
    distances = np.linalg.norm(preferences[:, None] - preferences[None], axis=2)
    distances[np.tril_indices(len(preferences))] = np.inf
    return np.argwhere(distances <= distances.min() + 1e-9)


def summarise_draws(
    draws: Sequence[Mapping[str, Mapping[str, Any]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Means over draws of rows, with intervals.

    Args:
      draws: for each setting what `measure_selection` returned.

    Returns:
      For each setting and measure a dict of `mean` and `interval` ([low, high]); besides the
      measures given, `gain` and `row_gain`: how much larger the hypervolumes are than those of the
      first setting on the same draw.
    """
    values = {
        setting: {name: np.array([draw[setting][name] for draw in draws]) for name in measures}
        for setting, measures in draws[0].items()
    }
    first = next(iter(values.values()))
    for measured in values.values():
        measured["gain"] = measured["hypervolume"] - first["hypervolume"]
        measured["row_gain"] = measured["row_hypervolume"] - first["row_hypervolume"]
    return {
        setting: {
            name: {"mean": value.mean(axis=0).tolist(), "interval": interval(value)}
            for name, value in measured.items()
        }
        for setting, measured in values.items()
    }
