"""The training step: a stack of adapters, each on rows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from paretohqd_jax.data.batches import Examples, one_longer, tokenize
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.loop import fine_tune as train_adapters
from paretohqd_jax.training.placement import fresh_adapters, place_adapters
from paretohqd_jax.training.step import OptimizerConfig


def fine_tune(
    task: Task,
    name: str,
    labels: Sequence[str],
    scored: Output,
    selected: Output,
    num_steps: int,
    start: Output | None = None,
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
    """
    train = task.config.train
    # A batch in other parts draws other dropout.
    names = ("batch_size", "num_microbatches", "learning_rate", "warmup_steps", "weight_decay",
             "max_grad_norm")  # fmt: skip
    return task.run.step(
        name, name,
        partial(
            train_on_selected, base=task.base, checkpoint_every=train.checkpoint_every,
            log_directory=task.run.workdir / "logs",
        ),
        *filter(None, (scored, selected, start)),
        adapter_names=list(labels), num_steps=num_steps, seed=step_seed(task.config.seed, name),
        **{option: train[option] for option in names},
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
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    num_microbatches: int,
    checkpoint_every: int,
    adapter_names: Sequence[str],
    log_directory: Path,
    seed: int,
) -> dict[str, int]:
    """Fine-tunes one adapter per name on its selected rows (S3, S6 of docs/method.md).

    Returns what that cost: steps of all adapters, and the tokens of the responses in them.
    """
    num_adapters = len(adapter_names)
    examples = selected_examples(base, scored, selection, num_adapters)
    length = examples.tokens.shape[-1]
    check_training_memory(base, num_adapters, batch_size, length, num_microbatches)

    def first_adapters() -> Any:
        if start is None:
            return fresh_adapters(base.mesh, base.model, step_seed(seed, "init"), num_adapters)
        trained = load_adapters(start.path, checkpoint_meta(base, adapter_names))
        return place_adapters(base.mesh, base.model, trained)

    optimizer = OptimizerConfig(learning_rate, num_steps, warmup_steps, weight_decay, max_grad_norm)
    train_adapters(
        base.model, base.params, first_adapters, examples, optimizer, mesh=base.mesh,
        batch_size=batch_size, num_microbatches=num_microbatches, seed=seed,
        adapter_names=adapter_names, directory=path, checkpoint_every=checkpoint_every,
        log_directory=log_directory / path.name, meta=checkpoint_meta(base, adapter_names),
        description=f"{path.name} of {num_adapters} adapters",
    )  # fmt: skip
    tokens_per_row = examples.response_mask.sum(axis=-1).mean()
    num_adapter_steps = num_adapters * num_steps
    return {
        "optimizer_steps": num_adapter_steps,
        "tokens_trained": round(float(num_adapter_steps * batch_size * tokens_per_row)),
    }


def checkpoint_meta(base: BaseModel, adapter_names: Sequence[str]) -> dict[str, Any]:
    """What adapters must share with a run that reads them."""
    lora = {name: getattr(base.lora, name) for name in ("rank", "alpha", "dropout")}
    lora["targets"] = [*base.lora.targets]
    return {"model": base.source, "lora": lora, "adapters": [*adapter_names]}


def selected_examples(
    base: BaseModel, scored: Output, selection: Output, num_adapters: int
) -> Examples:
    """The selected rows as `[num_adapters, k, length]` arrays."""
    row_ids = read_table(selection.path)["row_id"].to_numpy()
    rows = read_table(scored.path).take(row_ids)
    prompts = base.format(rows["prompt"].to_pylist())
    context = base.config.max_position_embeddings
    truncated = rows["truncated"].to_pylist() if "truncated" in rows.column_names else None
    examples = tokenize(
        base.tokenizer, prompts, rows["response"].to_pylist(), context, truncated,
        source=scored.path, row_ids=row_ids,
    )  # fmt: skip
    if jax.default_backend() != "cpu":
        examples = one_longer(examples)
    return jax.tree.map(lambda array: array.reshape(num_adapters, -1, array.shape[-1]), examples)
