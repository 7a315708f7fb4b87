"""The training loop: steps, metrics, progress, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from paretohqd_jax.data.batches import batch_rows
from paretohqd_jax.distributed import Preempted, reached_preemption
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.training import checkpoints, placement
from paretohqd_jax.training.held_out import held_out_measures
from paretohqd_jax.training.mesh import sharded
from paretohqd_jax.training.metrics import by_adapter, open_metrics
from paretohqd_jax.training.step import (
    SFT,
    Objective,
    OptimizerConfig,
    learning_rate_schedule,
    make_optimizer,
    make_train_step,
    on_held_ranks,
)

logger = logging.getLogger(__name__)
PyTree = Any


def fine_tune(
    model: Llama,
    params: PyTree,
    start: Callable[[], PyTree],
    examples: PyTree,
    optimizer_config: OptimizerConfig,
    *,
    mesh: Mesh,
    batch_size: int,
    num_microbatches: int = 1,
    seed: int,
    adapter_names: Sequence[str],
    directory: Path,
    checkpoint_every: int,
    log_directory: Path,
    meta: dict[str, Any],
    description: str,
    objective: Objective = SFT,
    candidates: Sequence[np.ndarray] | None = None,
    held_out: PyTree | None = None,
) -> PyTree:
    """Fine-tunes a stack of adapters, each on its own rows, and returns the trained stack.

    A run that was killed goes on from its last checkpoint and ends with the same bytes.

    Args:
      model: the network, with its LoRA configuration.
      params: the frozen base weights.
      start: makes the adapters to start from, every leaf `[num_adapters, ...]`, or filled up as by
        `placement`; their memory is given away. Not called where a checkpoint is resumed from.
      examples: a NamedTuple of `[num_adapters, num_rows, ...]` arrays, the rows of each adapter.
      optimizer_config: the optimiser and the number of steps.
      mesh: the devices to train on; results differ between meshes by rounding alone.
      batch_size: rows per adapter and step.
      num_microbatches: parts in which each of these batches is computed, to save memory.
      seed: of shuffling and dropout.
      adapter_names: one name per adapter, for metrics.
      directory: of the checkpoints (adapters, optimiser, step, dropout keys).
      checkpoint_every: steps between checkpoints.
      log_directory: of the TensorBoard events.
      meta: JSON-able facts that a checkpoint must share to be resumed from.
      description: shown before the progress bar.
      objective: what is minimised.
      candidates: of each adapter, the numbers of the rows it is trained on; all by default.
      held_out: rows like `examples` to tell the loss on, and what share of them is right, at each
        checkpoint.

    Raises:
      InputError: a loss, gradient or adapter became NaN or infinite, or the checkpoint is another
        configuration's.
      Preempted: SIGTERM was received; the step that was reached is saved.
    """
    num_adapters, num_steps = len(adapter_names), optimizer_config.num_steps
    if optimizer_config.held_ranks:
        objective = on_held_ranks(objective, optimizer_config.held_ranks)
    if candidates is None:
        candidates = [np.arange(jax.tree.leaves(examples)[0].shape[1])] * num_adapters
    optimizer = make_optimizer(optimizer_config)
    placed = placement.place_training(
        mesh, model, optimizer, num_adapters, batch_size, objective.carried
    )
    train_step = make_train_step(model, optimizer, placed.step, num_microbatches, objective)
    with sharded(mesh), checkpoints.checkpoint_manager(directory, checkpoint_every) as manager:
        saved = checkpoints.restore_latest(manager, placed.saved, meta)
        if saved is None:
            state, keys = placement.start(placed, start(), optimizer, seed, objective.carried)
        else:
            state, keys = placement.resume(placed, saved)
        first_step = int(state.step)
        with (
            open_metrics(log_directory, first_step) as write_metrics,
            progress_bar(num_steps, description, "step", first_step) as bar,
        ):
            tokens = math.prod(jax.tree.leaves(examples)[0].shape[2:])  # of a row, padded
            measure = None
            if held_out is not None:
                part = batch_size // num_microbatches
                measure = held_out_measures(model, placed, objective, held_out, part)

            def tell_held_out(step: int) -> None:
                if measure is not None:
                    found = measure(state.adapters, params)
                    named = {f"held_out_{name}": values for name, values in found.items()}
                    write_metrics(step, by_adapter(named, adapter_names))
                    told = ", ".join(f"{name} {x.mean():.3f}" for name, x in found.items())
                    logger.info("%s: on held-out rows %s after %d steps", description, told, step)

            tell_held_out(first_step)
            pace = _pace(optimizer_config, num_adapters * batch_size * tokens)

            def report(step: int, metrics: dict[str, jax.Array]) -> None:
                values = {name: x[:num_adapters] for name, x in jax.device_get(metrics).items()}
                check_finite(values, step, manager.latest_step(), adapter_names)
                write_metrics(step, by_adapter(values, adapter_names) | pace(step))
                bar.set_postfix(loss=f"{values['loss'].mean():.3f}", refresh=False)
                bar.update()

            unread = None  # what the last step reported, read while the devices are at the next
            for step in range(first_step, num_steps):
                rows = _rows(candidates, seed, step, batch_size)
                batch = placement.place_batch(placed, examples, rows)
                state, metrics = train_step(state, params, batch, keys)
                if unread is not None:
                    report(*unread)
                unread = step, metrics
                stop = reached_preemption()
                last = step + 1 == num_steps
                if last or stop or manager.should_save(step + 1):
                    report(*unread)  # first: what is not finite is never saved
                    unread = None
                    saved = placement.to_save(placed, state, keys)
                    checkpoints.save(manager, step + 1, saved, meta, force=last or stop)
                    if stop:  # leaving the block waits until it is saved
                        raise Preempted
                    tell_held_out(step + 1)
        return placement.to_save(placed, state, keys)["adapters"]


def _pace(config: OptimizerConfig, num_tokens: int) -> Callable[[int], dict[str, float]]:
    """Learning rate of a step, and seconds and tokens (padding included) since the last one."""
    schedule = learning_rate_schedule(config)
    last = time.perf_counter()

    def pace(step: int) -> dict[str, float]:
        nonlocal last
        now = time.perf_counter()
        seconds, last = max(now - last, 1e-9), now
        return {
            "learning_rate": float(schedule(step)),
            "seconds_per_step": seconds,
            "tokens_per_second": num_tokens / seconds,
        }

    return pace


def _rows(candidates: Sequence[np.ndarray], seed: int, step: int, batch_size: int) -> np.ndarray:
    """The rows of one step, int64 `[num_adapters, batch_size]`."""
    return np.stack(
        [
            own[batch_rows(seed, adapter, step, len(own), batch_size)]
            for adapter, own in enumerate(candidates)
        ]
    )


def check_finite(
    metrics: dict[str, np.ndarray], step: int, saved: int | None, adapter_names: Sequence[str]
) -> None:
    """Raises InputError for a loss, gradient or adapter that is NaN or infinite.

    `metrics` are those of a train step, `saved` is the step of the last checkpoint.
    """
    for metric in ("loss", "grad_norm", "norm"):  # in the order of cause and effect
        values = metrics[metric]
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            names = ", ".join(adapter_names[number] for number in bad)
            since = f"{saved}, whose checkpoint is kept," if saved else "0"
            raise InputError(
                f"the {metric} of adapter {names} became {values[bad[0]]} between step {since} and "
                f"step {step}; lower config.train.learning_rate or config.train.max_grad_norm"
            )
