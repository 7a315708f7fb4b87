"""The step that averages the factors of adapters, as others have made soups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import preference_labels
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters, save_adapters


def average_factors(task: Task, name: str, weights: np.ndarray, stack: Output) -> Output:
    """A stack of weighted averages of the factors `a` and `b` of another stack's adapters, apart.

    Their products are not the averages of the adapters' updates: for results of others that were
    made so. `weights` are `[num_averages, num_adapters]`.
    """
    return task.run.step(
        name, name, partial(write_averages, base=task.base), stack, weights=weights.tolist(),
        adapter_names=preference_labels(weights), also=task.network, all_processes=True,
    )  # fmt: skip


def write_averages(
    path: Path,
    scratch: Path,
    stack: Output,
    *,
    base: BaseModel,
    weights: Sequence[Sequence[float]],
    adapter_names: Sequence[str],
) -> None:
    """Leaves a checkpoint of the averages."""
    trained = load_adapters(stack.path, checkpoint_meta(base, stack.options["adapter_names"]))
    averages = averaged_factors(trained, np.array(weights))
    save_adapters(path, averages, checkpoint_meta(base, adapter_names))


def averaged_factors(stack: Any, weights: np.ndarray) -> Any:
    """Averages of a stack, `[num_averages, ...]`, by weights `[num_averages, num_adapters]`."""
    shares = weights.astype(np.float32)
    return jax.tree.map(lambda leaf: np.tensordot(shares, leaf, 1), stack)
