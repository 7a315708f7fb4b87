"""The step that trains a stack of adapters on preference pairs, each for weights of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.data.batches import Examples, tokenize
from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import preference_labels
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.pairs import pairs_in_use
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import on_tiles, train_stack, training_step
from paretohqd_jax.training.preferences import COMBINATIONS, Pairs, preference_objective

NUM_RESPONSES = 2  # of a pair


def single_objective_models(task: Task, pairs: Output, reference: Output) -> Output:
    """The stack `dpo`: a model of each objective alone, which several methods start from.

    They share it in a run directory: where one has trained it, the others find it.
    """
    corners = np.eye(len(task.objectives))
    return fine_tune_on_pairs(task, "dpo", corners, pairs, reference)


def fine_tune_on_pairs(
    task: Task,
    name: str,
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
      weights: of the objectives, `[num_adapters, num_objectives]`.
      pairs: with their labels.
      reference: log-probabilities of the base model.
      combination: of the objectives' losses, as of `preference_objective`, with its options.
    """
    how = {"combination": combination, **task.config.dpo, **options}
    return _train(task, name, weights, how, pairs, reference)


def fine_tune_beyond(
    task: Task,
    name: str,
    weights: np.ndarray,
    first: Sequence[int],
    pairs: Output,
    reference: Output,
    margins: Output,
) -> Output:
    """Trains an adapter for each preference on the pairs of one objective, beyond the others.

    Arguments are those of `fine_tune_on_pairs`, and besides:

    Args:
      first: `[num_adapters]`, the objective whose pairs are trained on; its weight is not 0.
      margins: what each objective pays for a pair, which the others' weights make one of.
    """
    how = {"combination": "weighted", **task.config.dpo}
    return _train(task, name, weights, how, pairs, reference, margins, first=list(first))


def _train(
    task: Task,
    name: str,
    weights: np.ndarray,
    objective: Mapping[str, Any],
    *inputs: Output,
    first: Sequence[int] = (),
) -> Output:
    num_gradients = len(task.objectives) if objective["combination"] in COMBINATIONS else 1
    work = partial(train_on_pairs, held_out_loss=task.config.train.held_out_loss)
    return training_step(
        task, name, work, *inputs, adapter_names=preference_labels(weights),
        weights=weights.tolist(), first=list(first), objectives=task.objectives,
        objective=objective, num_steps=task.config.train.num_steps, num_responses=NUM_RESPONSES,
        num_gradients=num_gradients,
    )  # fmt: skip


def train_on_pairs(
    path: Path,
    scratch: Path,
    pairs: Output,
    reference: Output,
    margins: Output | None = None,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    weights: Sequence[Sequence[float]],
    first: Sequence[int],
    objectives: Sequence[str],
    objective: Mapping[str, Any],
    batch_size: int,
    num_microbatches: int,
    num_responses: int,
    num_gradients: int,
    held_out_loss: bool = True,
    **how: Any,
) -> dict[str, int]:
    """Trains them; `how` are the other arguments of `train_stack`. Returns what that cost."""
    (table, num_training), num_adapters = pairs_in_use(pairs), len(adapter_names)
    labels = np.stack([table[name].to_numpy() for name in objectives], axis=1).astype(np.int8)
    examples = pairs_of_adapters(
        tokenized_pairs(base, table, str(pairs.path)), np.load(reference.path)[0], labels,
        np.array(weights, np.float32), np.load(margins.path) if margins else None, first,
    )  # fmt: skip
    examples, held_out = (
        jax.tree.map(lambda array, part=part: array[:, part], examples)
        for part in (slice(num_training), slice(num_training, None))
    )
    enough = held_out_loss and table.num_rows - num_training >= batch_size
    check_training_memory(
        base, num_adapters, batch_size, examples.tokens.shape[-1], num_microbatches, num_responses,
        num_gradients,
    )  # fmt: skip
    counted = (examples.labels != 0) & (examples.weights > 0)
    return train_stack(
        path, examples, base=base, adapter_names=adapter_names, batch_size=batch_size,
        num_microbatches=num_microbatches, objective=preference_objective(**objective),
        held_out=held_out if enough else None,
        candidates=[np.flatnonzero(own.any(axis=1)) for own in counted], **how,
    )  # fmt: skip


def pairs_of_adapters(
    examples: Examples,
    reference: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    margins: np.ndarray | None = None,
    first: Sequence[int] = (),
) -> Pairs:
    """The pairs as each adapter is trained on them, `[num_adapters, num_pairs, ...]`.

    What adapters share is there once.

    Args:
      examples: `[num_pairs, 2, length]`.
      reference: `[num_pairs, 2]`.
      labels: `[num_pairs, num_objectives]`.
      weights: `[num_adapters, num_objectives]`.
      margins: `[num_objectives, num_pairs]`, and `first` `[num_adapters]`, as of
        `fine_tune_beyond`; without them all objectives count by their weights.
    """
    num_adapters, num_pairs = len(weights), len(labels)
    counts, share = weights, np.ones(num_adapters, np.float32)
    others = np.zeros((num_adapters, 1), np.float32)
    if margins is not None:
        counts = np.eye(weights.shape[1], dtype=np.float32)[list(first)]
        share = (weights * counts).sum(axis=1)
        others = (weights * (1 - counts)) @ margins

    def for_all(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (num_adapters, *array.shape))

    return Pairs(
        *map(for_all, (*examples, reference, labels)),
        np.broadcast_to(counts[:, None], (num_adapters, *labels.shape)),
        np.broadcast_to(others, (num_adapters, num_pairs)),
        np.broadcast_to(share[:, None], (num_adapters, num_pairs)),
    )  # fmt: skip


def tokenized_pairs(base: BaseModel, table: pa.Table, source: str) -> Examples:
    """The tokens and masks of the pairs of a table, `[num_pairs, 2, length]`, as of `Examples`."""
    rows = rows_of(table)
    row_ids = rows["source_row"].to_pylist() if "source_row" in rows.column_names else None
    examples = tokenize(
        base.tokenizer, base.format(rows["prompt"].to_pylist()), rows["response"].to_pylist(),
        base.config.max_position_embeddings, source=source, row_ids=row_ids,
    )  # fmt: skip
    return Examples(*(array.reshape(table.num_rows, 2, -1) for array in on_tiles(examples)))
