"""The training loop: steps, metrics, progress, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paretohqd_jax.data.batches import Examples, batch_rows
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.training import checkpoints
from paretohqd_jax.training.step import (
    OptimizerConfig,
    TrainState,
    init_train_state,
    make_optimizer,
    make_train_step,
)

PyTree = Any


def fine_tune(
    model: Llama,
    params: PyTree,
    adapters: PyTree,
    examples: Examples,
    optimizer_config: OptimizerConfig,
    *,
    batch_size: int,
    seed: int,
    adapter_names: Sequence[str],
    directory: Path,
    checkpoint_every: int,
    log_directory: Path,
    meta: dict[str, Any],
    description: str,
) -> PyTree:
    """Fine-tunes a stack of adapters, each on its own rows, and returns the trained stack.

    A run that was killed goes on from its last checkpoint and ends with the same bytes.

    Args:
      model: the network, with its LoRA configuration.
      params: the frozen base weights.
      adapters: where to start, every leaf `[num_adapters, ...]`.
      examples: `[num_adapters, num_rows, length]` arrays, the rows of each adapter.
      optimizer_config: the optimiser and the number of steps.
      batch_size: rows per adapter and step.
      seed: of shuffling and dropout.
      adapter_names: one name per adapter, for metrics.
      directory: of the checkpoints (adapters, optimiser, step, dropout keys).
      checkpoint_every: steps between checkpoints.
      log_directory: of the TensorBoard events.
      meta: JSON-able facts that a checkpoint must share to be resumed from.
      description: shown before the progress bar.

    Raises:
      InputError: a loss became NaN or infinite, or the checkpoint is another configuration's.
    """
    from tensorboardX import SummaryWriter

    num_adapters, num_rows = examples.tokens.shape[:2]
    optimizer = make_optimizer(optimizer_config)
    train_step = make_train_step(model, optimizer)
    state = init_train_state(adapters, optimizer)
    keys = jax.random.split(jax.random.key(seed), num_adapters)
    with (
        checkpoints.checkpoint_manager(directory, checkpoint_every) as manager,
        SummaryWriter(str(log_directory)) as writer,
    ):
        saved = checkpoints.restore_latest(manager, _saved_state(state, keys), meta)
        if saved is not None:
            state = TrainState(saved["step"], saved["adapters"], saved["optimizer_state"])
            keys = jax.random.wrap_key_data(saved["keys"])
        start = int(state.step)
        with progress_bar(optimizer_config.num_steps, description, "step", start) as bar:
            for step in range(start, optimizer_config.num_steps):
                rows = np.stack(
                    [batch_rows(seed, i, step, num_rows, batch_size) for i in range(num_adapters)]
                )
                batch = jax.tree.map(
                    lambda array, rows=rows: np.take_along_axis(array, rows[..., None], axis=1),
                    examples,
                )
                state, metrics = train_step(state, params, batch, keys)
                metrics = jax.device_get(metrics)
                _check_finite(metrics["loss"], step, adapter_names)
                for name, values in metrics.items():
                    for adapter_name, value in zip(adapter_names, values.tolist(), strict=True):
                        writer.add_scalar(f"{name}/{adapter_name}", value, step)
                bar.set_postfix(loss=f"{metrics['loss'].mean():.3f}", refresh=False)
                bar.update()
                last = step + 1 == optimizer_config.num_steps
                checkpoints.save(manager, step + 1, _saved_state(state, keys), meta, force=last)
    return state.adapters


def _saved_state(state: TrainState, keys: jax.Array) -> dict[str, PyTree]:
    return {**state._asdict(), "keys": jax.random.key_data(keys)}


def _check_finite(losses: np.ndarray, step: int, adapter_names: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise InputError(
            f"the loss of adapter {adapter_names[bad[0]]} became {losses[bad[0]]} at step {step}; "
            "lower train.learning_rate or train.max_grad_norm"
        )
