"""The training step: a stack of adapters, each on rows of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.data.batches import Examples, one_longer, tokenize
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.manifest import LOGS
from paretohqd_jax.models.lora import with_rank
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.loop import fine_tune as train_adapters
from paretohqd_jax.training.placement import fresh_adapters, place_adapters, place_on_top
from paretohqd_jax.training.step import OptimizerConfig


def fine_tune(
    task: Task,
    name: str,
    labels: Sequence[str],
    scored: Output,
    selected: Output,
    num_steps: int,
    start: Output | None = None,
    **how: Any,
) -> Output:
    """Fine-tunes a stack of adapters, one per label, each on its own selected rows.

    Args:
      task: its `config.train` says how.
      name: of the step, and of the directory of the stack.
      labels: `[num_adapters]` names of the adapters.
      scored: the rows that `selected` counts.
      selected: `row_id` of as many rows for each adapter in turn.
      num_steps: optimiser steps.
      start: a stack of the same labels to go on from; by default adapters are fresh.
      **how: options of training in place of those of `config.train`, and its `schedule`.
    """
    held_out_by = task.objectives if task.config.train.held_out_loss else []
    return training_step(
        task, name, partial(train_on_selected, held_out_by=held_out_by), scored, selected,
        *filter(None, [start]), adapter_names=list(labels), num_steps=num_steps, **how,
    )  # fmt: skip


def training_step(
    task: Task, name: str, work: Callable[..., dict[str, int]], *inputs: Output, **options: Any
) -> Output:
    """A step that trains a stack and leaves it under its name, with the options of training.

    `options` take the place of those of `config.train`.
    """
    train = task.config.train
    # A batch in other parts draws other dropout.
    names = ("batch_size", "num_microbatches", "learning_rate", "warmup_steps", "weight_decay",
             "max_grad_norm")  # fmt: skip
    return task.run.step(
        name, name,
        partial(
            work, base=task.base, checkpoint_every=train.checkpoint_every,
            log_directory=task.run.workdir / LOGS,
        ),
        *inputs, seed=task.config.seed, **{option: train[option] for option in names} | options,
        also=task.network, all_processes=True,
    )  # fmt: skip


def train_on_selected(
    path: Path,
    scratch: Path,
    scored: Output,
    selection: Output,
    start: Output | None = None,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    batch_size: int,
    num_microbatches: int,
    held_out_by: Sequence[str] = (),
    **how: Any,
) -> dict[str, int]:
    """Fine-tunes one adapter per name on its selected rows (S3, S6 of docs/method.md).

    With objectives in `held_out_by` the loss on rows of held-out prompts is told. `how` are the
    other arguments of `train_stack`. Returns what that cost.
    """
    table = read_table(scored.path)
    row_ids = read_table(selection.path)["row_id"].to_numpy().reshape(len(adapter_names), -1)
    examples = examples_of(base, scored.path, table, row_ids)
    like = held_out_rows(table, row_ids, held_out_by, batch_size) if held_out_by else row_ids[:, :0]
    held_out = examples_of(base, scored.path, table, like) if like.size else None
    length = examples.tokens.shape[-1]
    check_training_memory(base, len(adapter_names), batch_size, length, num_microbatches)
    return train_stack(
        path, examples, base=base, start=start, adapter_names=adapter_names,
        batch_size=batch_size, num_microbatches=num_microbatches, held_out=held_out, **how,
    )  # fmt: skip


def train_stack(
    path: Path,
    examples: Any,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    start: Output | None = None,
    beneath: Output | None = None,
    num_steps: int,
    batch_size: int,
    num_microbatches: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    checkpoint_every: int,
    log_directory: Path,
    seed: int,
    schedule: str = "linear",
    **what: Any,
) -> dict[str, int]:
    """Trains a stack and leaves its checkpoints at `path`; the options are those of `config.train`.

    Args:
      path: of the checkpoints.
      examples: a NamedTuple of `[num_adapters, num_rows, ...]` arrays with a `response_mask`.
      base: the model.
      adapter_names: `[num_adapters]`.
      start: a stack of these names to go on from; by default adapters are fresh.
      beneath: a stack of these names that stays as it is, fresh adapters on top of it. What is left
        are their sums.
      log_directory: of the events of all stacks.
      schedule: of the learning rate, as of `OptimizerConfig`.
      **what: objective, candidates and held_out, as of `training.loop.fine_tune`.

    Returns:
      What that cost: steps of all adapters, and the tokens of the responses in them.
    """
    num_adapters, seed = len(adapter_names), step_seed(seed, path.name)
    held_ranks = base.lora.rank if beneath else 0
    model = on_top_of(base).model if beneath else base.model

    def trained(stack: Output) -> Any:
        return load_adapters(stack.path, checkpoint_meta(base, adapter_names))

    def first_adapters() -> Any:
        if start:
            return place_adapters(base.mesh, model, trained(start))
        if beneath:
            return place_on_top(base.mesh, model, trained(beneath), step_seed(seed, "init"))
        return fresh_adapters(base.mesh, model, step_seed(seed, "init"), num_adapters)

    optimizer = OptimizerConfig(
        learning_rate, num_steps, warmup_steps, weight_decay, max_grad_norm, held_ranks, schedule
    )
    train_adapters(
        model, base.params, first_adapters, examples, optimizer, mesh=base.mesh,
        batch_size=batch_size, num_microbatches=num_microbatches, seed=seed,
        adapter_names=adapter_names, directory=path, checkpoint_every=checkpoint_every,
        log_directory=log_directory / path.name, meta=checkpoint_meta(base, adapter_names),
        description=f"{path.name} of {num_adapters} adapters", **what,
    )  # fmt: skip
    within_row = tuple(range(2, examples.response_mask.ndim))
    tokens_per_row = examples.response_mask.sum(axis=within_row).mean()
    num_adapter_steps = num_adapters * num_steps
    return {
        "optimizer_steps": num_adapter_steps,
        "tokens_trained": round(float(num_adapter_steps * batch_size * tokens_per_row)),
    }


def on_top_of(base: BaseModel) -> BaseModel:
    """The model for adapters on top of a run's own, with the ranks of both."""
    return base.with_lora(with_rank(base.lora, 2 * base.lora.rank))


def checkpoint_meta(base: BaseModel, adapter_names: Sequence[str]) -> dict[str, Any]:
    """What adapters must share with a run that reads them."""
    lora = {name: getattr(base.lora, name) for name in ("rank", "alpha", "dropout")}
    lora["targets"] = [*base.lora.targets]
    return {"model": base.source, "lora": lora, "adapters": [*adapter_names]}


def examples_of(base: BaseModel, source: Path, table: pa.Table, row_ids: np.ndarray) -> Examples:
    """Rows `[num_adapters, k]` of the table of a file, as `[num_adapters, k, length]` arrays."""
    rows = table.take(row_ids.ravel())
    prompts = base.format(rows["prompt"].to_pylist())
    context = base.config.max_position_embeddings
    truncated = rows["truncated"].to_pylist() if "truncated" in rows.column_names else None
    examples = tokenize(
        base.tokenizer, prompts, rows["response"].to_pylist(), context, truncated,
        source=source, row_ids=row_ids.ravel(),
    )  # fmt: skip
    examples = on_tiles(examples)
    return jax.tree.map(lambda array: array.reshape(*row_ids.shape, array.shape[-1]), examples)


def on_tiles(examples: Examples) -> Examples:
    """The rows, on an accelerator of a length that its tiles divide in training."""
    return examples if jax.default_backend() == "cpu" else one_longer(examples)


def held_out_rows(
    table: pa.Table, row_ids: np.ndarray, objectives: Sequence[str], num_rows: int
) -> np.ndarray:
    """Rows of held-out prompts, for each adapter those most like the rows it is trained on.

    They are the nearest to the mean of its rows' rewards, in units of their standard deviations.

    Args:
      table: scored rows.
      row_ids: `[num_adapters, k]`, of the rows that each is trained on.
      objectives: the columns of rewards.
      num_rows: for each adapter.

    Returns:
      int64 `[num_adapters, num_rows]`, or `[num_adapters, 0]` if fewer rows are held out.
    """
    splits = table["split"].to_pylist() if "split" in table.column_names else []
    candidates = np.array([row for row, split in enumerate(splits) if split == "test"], np.int64)
    if candidates.size < num_rows:
        return row_ids[:, :0]
    rewards = np.stack([table[name].to_numpy() for name in objectives], axis=1).astype(np.float64)
    scale = rewards.std(axis=0)
    rewards = rewards / np.where(scale > 0, scale, 1.0)
    centres = rewards[row_ids].mean(axis=1)
    gaps = ((rewards[candidates] - centres[:, None]) ** 2).sum(axis=-1)
    return candidates[np.argsort(gaps, axis=1, kind="stable")[:, :num_rows]]
