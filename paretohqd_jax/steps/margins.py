"""The step that says what each objective pays for the chosen response beyond the rejected one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paretohqd_jax.data.pairs import PLACES
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.pairs import HELD_OUT_PAIRS, pairs_in_use
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.preference_losses import implicit_rewards


def implicit_margins(task: Task, reference: Output, likelihoods: Output) -> Output:
    """By the implicit rewards of one DPO model of each objective.

    Leaves float32 `[num_objectives, num_pairs]`.

    Args:
      task: its `config.dpo.beta` is that of the models.
      reference: log-probabilities of the base model.
      likelihoods: those of the models.
    """
    beta = task.config.dpo.beta
    return task.run.step(
        "margins", "margins.npy", write_implicit_margins, reference, likelihoods, beta=beta
    )


def write_implicit_margins(
    path: Path, scratch: Path, reference: Output, likelihoods: Output, *, beta: float
) -> None:
    """Leaves `[num_objectives, num_pairs]`."""
    rewards = implicit_rewards(np.load(likelihoods.path), np.load(reference.path), beta)
    np.save(path, rewards[..., 0] - rewards[..., 1])


def rewarded_margins(task: Task, rows: Output, pairs: Output) -> Output:
    """By the rewards of the rows that pairs were made of; leaves what `implicit_margins` does."""
    return task.run.step(
        "margins", "margins.npy", write_rewarded_margins, rows, pairs, objectives=task.objectives,
        also={"held_out_pairs": HELD_OUT_PAIRS},
    )  # fmt: skip


def write_rewarded_margins(
    path: Path, scratch: Path, rows: Output, pairs: Output, *, objectives: Sequence[str]
) -> None:
    """Leaves `[num_objectives, num_pairs]`."""
    rewards = rewards_matrix(read_table(rows.path), objectives, rows.path).T
    table, _ = pairs_in_use(pairs)
    chosen, rejected = (rewards[:, table[place].to_numpy()] for place in PLACES)
    np.save(path, (chosen - rejected).astype(np.float32))
