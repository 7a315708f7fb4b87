"""The step that trains a stack of adapters on preference pairs, each for weights of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.batches import Examples, tokenize
from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import preference_labels
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.pairs import training_pairs
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import train_stack, training_step
from paretohqd_jax.training.preferences import COMBINATIONS, Pairs, preference_objective

NUM_RESPONSES = 2  # of a pair


def single_objective_models(task: Task, pairs: Output, reference: Output) -> Output:
    """The stack `dpo`: a model of each objective alone, which several methods start from.

    They share it in a run directory: where one has trained it, the others find it.
    """
    corners = np.eye(len(task.objectives))
    return fine_tune_on_pairs(task, "dpo", preference_labels(corners), corners, pairs, reference)


def fine_tune_on_pairs(
    task: Task,
    name: str,
    labels: Sequence[str],
    weights: np.ndarray,
    pairs: Output,
    reference: Output,
    combination: str = "weighted",
    **options: float,
) -> Output:
    """Trains an adapter for each row of weights, on the pairs that its objectives decide.

    Args:
      task: its `config.dpo` and `config.train` say how.
      name: of the step, and of the directory of the stack.
      labels: `[num_adapters]` names of the adapters.
      weights: of the objectives, `[num_adapters, num_objectives]`.
      pairs: with their labels.
      reference: log-probabilities of the base model.
      combination: of the objectives' losses, as of `preference_objective`, with its options.
    """
    how = {"combination": combination, **task.config.dpo, **options}
    return training_step(
        task, name, train_on_pairs, pairs, reference, adapter_names=list(labels),
        weights=weights.tolist(), objectives=task.objectives, objective=how,
        num_steps=task.config.train.num_steps, num_responses=NUM_RESPONSES,
    )  # fmt: skip


def train_on_pairs(
    path: Path,
    scratch: Path,
    pairs: Output,
    reference: Output,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    weights: Sequence[Sequence[float]],
    objectives: Sequence[str],
    objective: Mapping[str, Any],
    batch_size: int,
    num_microbatches: int,
    num_responses: int,
    **how: Any,
) -> dict[str, int]:
    """Trains them; `how` are the other arguments of `train_stack`. Returns what that cost."""
    table, num_adapters = training_pairs(pairs), len(adapter_names)
    examples = tokenized_pairs(base, table, str(pairs.path))
    labels = np.stack([table[name].to_numpy() for name in objectives], axis=1).astype(np.int8)
    each = np.array(weights, np.float32)
    num_pairs, length = len(labels), examples.tokens.shape[-1]

    def for_all(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (num_adapters, *array.shape))  # without a copy

    whole = Pairs(
        *map(for_all, examples), for_all(np.load(reference.path)[0]), for_all(labels),
        np.broadcast_to(each[:, None], (num_adapters, num_pairs, each.shape[1])),
        for_all(np.zeros(num_pairs, np.float32)), for_all(np.ones(num_pairs, np.float32)),
    )  # fmt: skip
    num_gradients = len(objectives) if objective["combination"] in COMBINATIONS else 1
    check_training_memory(
        base, num_adapters, batch_size, length, num_microbatches, num_responses, num_gradients
    )
    return train_stack(
        path, whole, base=base, adapter_names=adapter_names, batch_size=batch_size,
        num_microbatches=num_microbatches, objective=preference_objective(**objective),
        candidates=[np.flatnonzero(((labels != 0) & (own > 0)).any(axis=1)) for own in each],
        **how,
    )  # fmt: skip


def tokenized_pairs(base: BaseModel, table: pa.Table, source: str) -> Examples:
    """The tokens and masks of the pairs of a table, `[num_pairs, 2, length]`, as of `Examples`."""
    rows = rows_of(table)
    row_ids = rows["source_row"].to_pylist() if "source_row" in rows.column_names else None
    examples = tokenize(
        base.tokenizer, base.format(rows["prompt"].to_pylist()), rows["response"].to_pylist(),
        base.config.max_position_embeddings, source=source, row_ids=row_ids,
    )  # fmt: skip
    return Examples(*(array.reshape(table.num_rows, 2, -1) for array in examples))
