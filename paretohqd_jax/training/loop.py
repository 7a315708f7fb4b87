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
from paretohqd_jax.training.metrics import open_metrics
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
    optimizer = make_optimizer(optimizer_config)
    train_step = make_train_step(model, optimizer)
    state = init_train_state(adapters, optimizer)
    keys = jax.random.split(jax.random.key(seed), len(adapter_names))
    with checkpoints.checkpoint_manager(directory, checkpoint_every) as manager:
        saved = checkpoints.restore_latest(manager, _saved_state(state, keys), meta)
        if saved is not None:
            state = TrainState(saved["step"], saved["adapters"], saved["optimizer_state"])
            keys = jax.random.wrap_key_data(saved["keys"])
        start, num_steps = int(state.step), optimizer_config.num_steps
        with (
            open_metrics(log_directory, start) as write_metrics,
            progress_bar(num_steps, description, "step", start) as bar,
        ):
            for step in range(start, num_steps):
                batch = _batch(examples, seed, step, batch_size)
                state, metrics = train_step(state, params, batch, keys)
                metrics = jax.device_get(metrics)
                _check_finite(metrics["loss"], step, adapter_names)
                write_metrics(step, _by_name(metrics, adapter_names))
                bar.set_postfix(loss=f"{metrics['loss'].mean():.3f}", refresh=False)
                bar.update()
                last = step + 1 == num_steps
                checkpoints.save(manager, step + 1, _saved_state(state, keys), meta, force=last)
    return state.adapters


def _batch(examples: Examples, seed: int, step: int, batch_size: int) -> Examples:
    """The rows of one step, `[num_adapters, batch_size, length]` arrays."""
    num_adapters, num_rows = examples.tokens.shape[:2]
    rows = np.stack(
        [batch_rows(seed, adapter, step, num_rows, batch_size) for adapter in range(num_adapters)]
    )
    return jax.tree.map(lambda array: np.take_along_axis(array, rows[..., None], axis=1), examples)


def _by_name(metrics: dict[str, np.ndarray], adapter_names: Sequence[str]) -> dict[str, float]:
    return {
        f"{metric}/{name}": value
        for metric, values in metrics.items()
        for name, value in zip(adapter_names, values.tolist(), strict=True)
    }


def _saved_state(state: TrainState, keys: jax.Array) -> dict[str, PyTree]:
    return {**state._asdict(), "keys": jax.random.key_data(keys)}


def _check_finite(losses: np.ndarray, step: int, adapter_names: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise InputError(
            f"the loss of adapter {adapter_names[bad[0]]} became {losses[bad[0]]} at step {step}; "
            "lower train.learning_rate or train.max_grad_norm"
        )
