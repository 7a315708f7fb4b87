"""The loop of policy gradients: answers are collected, judged and learnt from, over and over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from paretohqd_jax.distributed import Preempted, reached_preemption
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.training import checkpoints, placement
from paretohqd_jax.training.loop import check_finite
from paretohqd_jax.training.mesh import sharded
from paretohqd_jax.training.metrics import by_adapter, open_metrics
from paretohqd_jax.training.policy_gradient import (
    Answers,
    Judged,
    make_judge,
    policy_objective,
)
from paretohqd_jax.training.step import (
    OptimizerConfig,
    TrainState,
    learning_rate_schedule,
    make_optimizer,
    make_train_step,
)

PyTree = Any

# The least weight of the divergence with which it is read off the loss. Advantages of about 1
# beside it are rounded to 1e-7, so that of a smaller one only their rounding would be read.
LEAST_KL = 1e-3


class PolicyConfig(NamedTuple):
    """How policies learn from their answers."""

    num_updates: int
    num_epochs: int  # how often an update goes over its answers
    clip: float
    kl: float
    max_kl: float  # per token, where training stops
    temperature: float  # that answers are sampled with


class Collected(NamedTuple):
    """The answers of one update, numpy arrays `[num_adapters, rows, ...]`, and what to log."""

    answers: Answers
    metrics: Mapping[str, np.ndarray]  # by name, [num_adapters]


def reinforce(
    model: Llama,
    params: Callable[[], PyTree],
    start: Callable[[], PyTree],
    collect: Callable[[int, PyTree], Collected],
    policy: PolicyConfig,
    optimizer_config: OptimizerConfig,
    *,
    mesh: Mesh,
    batch_size: int,
    num_microbatches: int,
    seed: int,
    adapter_names: Sequence[str],
    directory: Path,
    checkpoint_every: int,
    log_directory: Path,
    meta: dict[str, Any],
    description: str,
) -> None:
    """Trains a stack of adapters, each on its own answers, and leaves checkpoints of it.

    An update lets all adapters answer, and takes `num_epochs` times as many optimiser steps as
    there are batches in the answers. A run that was killed goes on from its last checkpoint and
    ends with the same bytes.

    Args:
      model: the network, with its LoRA configuration.
      params: gives the frozen base weights, those of all layers in stacks.
      start: makes the adapters to start from, as of `training.loop.fine_tune`.
      collect: of the number of an update and the adapters `[num_adapters, ...]`, whole on every
        device, gives their answers. `Preempted` may come of it.
      policy: how they learn.
      optimizer_config: the optimiser and the number of its steps in all.
      batch_size: answers per adapter and optimiser step, a divisor of those of an update.
      checkpoint_every: updates between checkpoints.
      mesh, num_microbatches, seed, adapter_names, directory, log_directory, meta, description: as
        of `training.loop.fine_tune`.

    Raises:
      InputError: a loss, gradient or adapter became NaN or infinite, a policy went further from the
        base model than `max_kl`, or the checkpoint is another configuration's.
      Preempted: SIGTERM was received; the updates that were reached are saved.
    """
    num_adapters = len(adapter_names)
    steps_per_update = optimizer_config.num_steps // policy.num_updates
    optimizer = make_optimizer(optimizer_config)
    placed = placement.place_training(mesh, model, optimizer, num_adapters, batch_size)
    objective = policy_objective(policy.clip, policy.kl, policy.temperature)
    train_step = make_train_step(model, optimizer, placed.step, num_microbatches, objective)
    # Where answers are learnt from once, the ratio to the policy that gave them is 1.
    once = steps_per_update == 1 and policy.kl >= LEAST_KL
    judge = make_judge(model, policy.temperature, num_microbatches, placed.step, not once)
    # Sampling takes whole adapters, as few as there are, on every device.
    whole = jax.jit(
        lambda stack: jax.tree.map(lambda leaf: leaf[:num_adapters], stack),
        out_shardings=placed.step.metrics,
    )
    schedule = learning_rate_schedule(optimizer_config)

    def judge_all(adapters: PyTree, answers: Answers) -> tuple[list[Judged], np.ndarray | None]:
        """The answers in batches, and the divergence of each adapter, unless they are used once."""
        batches, divergences = [], []
        for rows in np.arange(answers.tokens.shape[1]).reshape(-1, batch_size):
            batch = placement.place_batch(placed, answers, np.tile(rows, (num_adapters, 1)))
            judged, divergence = judge(adapters, params(), batch)
            batches.append(judged)
            divergences.append(divergence)
        if once:
            return batches, None
        return batches, np.mean(jax.device_get(divergences), axis=0)[:num_adapters]

    def learn(state: TrainState, batches: list[Judged]) -> tuple[TrainState, dict[str, np.ndarray]]:
        steps = []
        for batch in batches * policy.num_epochs:
            state, metrics = train_step(state, params(), batch, keys)
            steps.append(metrics)
        steps = jax.device_get(steps)
        return state, jax.tree.map(lambda *values: np.mean(values, axis=0)[:num_adapters], *steps)

    with sharded(mesh), checkpoints.checkpoint_manager(directory, checkpoint_every) as manager:
        saved = checkpoints.restore_latest(manager, placed.saved, meta)
        if saved is None:
            state, keys = placement.start(placed, start(), optimizer, seed)
        else:
            state, keys = placement.resume(placed, saved)
        first = int(state.step) // steps_per_update

        def save(update: int, force: bool) -> None:
            to_save = placement.to_save(placed, state, keys)
            checkpoints.save(manager, update, to_save, meta, force=force)

        with (
            open_metrics(log_directory, first) as write_metrics,
            progress_bar(policy.num_updates, description, "update", first) as bar,
        ):
            for update in range(first, policy.num_updates):
                began = time.perf_counter()
                try:
                    answers, told = collect(update, whole(state.adapters))
                except Preempted:  # the state is that after the last update
                    save(update, force=True)
                    raise
                collected = time.perf_counter()

                batches, kl = judge_all(state.adapters, answers)
                state, metrics = learn(state, batches)
                check_finite(metrics, update, manager.latest_step(), adapter_names)
                if kl is None:  # the loss is kl times the divergence, less the mean advantage
                    kl = (metrics["loss"] + _mean_advantage(answers)) / policy.kl
                _check_divergence(kl, policy.max_kl, update, manager.latest_step(), adapter_names)
                values = {
                    **told, "kl": kl, "policy_loss": metrics["loss"],  # says nothing of quality
                    "grad_norm": metrics["grad_norm"], "norm": metrics["norm"],
                }  # fmt: skip
                pace = {
                    "learning_rate": float(schedule(update * steps_per_update)),
                    "seconds/collecting": collected - began,
                    "seconds/optimising": time.perf_counter() - collected,
                }
                write_metrics(update, by_adapter(values, adapter_names) | pace)
                bar.set_postfix(reward=f"{told['weighted_reward'].mean():.3f}", refresh=False)
                bar.update()
                stop, last = reached_preemption(), update + 1 == policy.num_updates
                if last or stop or manager.should_save(update + 1):
                    save(update + 1, force=last or stop)
                if stop and not last:
                    raise Preempted


def _mean_advantage(answers: Answers) -> np.ndarray:
    """Over the tokens of the answers of each adapter, `[num_adapters]`."""
    lengths = answers.answer_mask.sum(axis=-1)
    return (answers.advantages * lengths).sum(axis=1) / lengths.sum(axis=1)


def _check_divergence(
    kl: np.ndarray, max_kl: float, update: int, saved: int | None, adapter_names: Sequence[str]
) -> None:
    """Raises InputError for policies that are further from the base model than `max_kl`.

    `saved` is the update of the last checkpoint.
    """
    beyond = np.flatnonzero(~(kl <= max_kl))
    if beyond.size:
        names = ", ".join(adapter_names[number] for number in beyond)
        kept = f" from the checkpoint of update {saved}, which is kept" if saved else ""
        raise InputError(
            f"the KL divergence of adapter {names} from the base model is {kl[beyond[0]]:.3g} per "
            f"token in update {update}, above config.morlhf.max_kl={max_kl:g}; raise "
            "config.morlhf.kl or lower config.train.learning_rate to train anew, or raise "
            f"config.morlhf.max_kl to go on{kept}"
        )
