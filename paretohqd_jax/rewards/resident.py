"""Scorers that stay on the devices, for texts that come in many small turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paretohqd_jax.config import split_model
from paretohqd_jax.distributed import check_preemption
from paretohqd_jax.rewards.registry import BaseModel
from paretohqd_jax.rewards.scoring import load_scorer, score_shard
from paretohqd_jax.rewards.shards import Shard


def resident_scorers(
    models: Sequence[str],
    *,
    backend: str,
    dtype: str,
    batch_size: int,
    base: BaseModel | None = None,
) -> Callable[[Sequence[str], Sequence[str], str], np.ndarray]:
    """Loads the scorers, and returns `score(prompts, responses, description)`.

    That gives the rewards float32 `[num_rows, num_objectives]` of one response to each prompt, and
    `description` begins its messages. Nothing is kept in a store, whose files would be read again
    at every turn. Arguments, errors and processes are those of `rewards.scoring.score`.
    """
    names = [split_model(model)[1] for model in models]
    scorers = [load_scorer(name, backend, dtype, base) for name in names]

    def score(prompts: Sequence[str], responses: Sequence[str], description: str) -> np.ndarray:
        shard = Shard(list(prompts), list(responses), list(range(len(prompts))))
        columns = []
        for name, scorer in zip(names, scorers, strict=True):
            check_preemption()
            place = f"{description}: objective {name!r}"
            columns.append(score_shard(scorer, shard, place, batch_size)[0])
        return np.array(columns, np.float32).T

    return score
