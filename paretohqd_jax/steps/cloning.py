"""The step that trains a stack of adapters by weighted cloning, each for a trade-off of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.config.mopo import TradeOff
from paretohqd_jax.constraints.duals import Duals, Rules, log_densities, rehearse, start
from paretohqd_jax.constraints.lagrangian import effective_sample_size
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import examples_of, train_stack, training_step
from paretohqd_jax.training.cloning import ComparedRows, cloning_objective, uniform

logger = logging.getLogger(__name__)
NUM_JUDGED = 20  # steps in a row that a constraint is judged by: lambda may swing
TOLERANCE = 0.01  # in win rates, that a constraint may be short at the end


def clone(task: Task, name: str, wanted: Sequence[TradeOff], wins: Output) -> Output:
    """Trains an adapter for each trade-off on the rows of `wins`, with their win rates.

    `task.config.mopo` and `task.config.train` say how.
    """
    mopo = task.config.mopo.to_dict()
    for told in ("primary", "levels", "temperature"):  # by the trade-offs, and by the win rates
        del mopo[told]
    return training_step(
        task, name, train_by_cloning, wins, adapter_names=[each.label for each in wanted],
        primaries=[each.primary for each in wanted], levels=[each.levels for each in wanted],
        objectives=task.objectives, mopo=mopo, num_steps=task.config.train.num_steps,
    )  # fmt: skip


def train_by_cloning(
    path: Path,
    scratch: Path,
    wins: Output,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    primaries: Sequence[str],
    levels: Sequence[Sequence[float]],
    objectives: Sequence[str],
    mopo: Mapping[str, Any],
    batch_size: int,
    num_microbatches: int,
    num_steps: int,
    **how: Any,
) -> dict[str, int]:
    """Trains them; `how` are the other arguments of `train_stack`. Returns what that cost.

    The duals follow from the win rates alone, so they are rehearsed before anything is trained.
    """
    table, num_adapters = read_table(wins.path), len(adapter_names)
    win_rates = rewards_matrix(table, objectives, wins.path).astype(np.float32)
    rules = rules_of(mopo)
    duals = first_duals(win_rates, objectives, primaries, levels, mopo["thresholds"], rules)
    check_duals(
        duals, win_rates, adapter_names, objectives, rules, num_steps, mopo["max_weight"],
        mopo["min_sample_size"],
    )  # fmt: skip
    examples = examples_of(base, wins.path, table, np.arange(table.num_rows)[None])
    check_training_memory(
        base, num_adapters, batch_size, examples.tokens.shape[-1], num_microbatches
    )
    rows = ComparedRows(
        *(
            np.broadcast_to(array, (num_adapters, *array.shape[1:]))
            for array in (*examples, win_rates[None])
        )
    )
    return train_stack(
        path, rows, base=base, adapter_names=adapter_names, batch_size=batch_size,
        num_microbatches=num_microbatches, num_steps=num_steps,
        objective=cloning_objective(duals, win_rates, objectives, rules, mopo["max_weight"]), **how,
    )  # fmt: skip


def rules_of(mopo: Mapping[str, Any]) -> Rules:
    """The rules that the options of `config.mopo` say."""
    given = {name: mopo[name] for name in Rules._fields if name != "adaptive"}
    return Rules(**given, adaptive=mopo["thresholds"] == "adaptive")


def first_duals(
    win_rates: np.ndarray,
    objectives: Sequence[str],
    primaries: Sequence[str],
    levels: Sequence[Sequence[float]],
    thresholds: str,
    rules: Rules,
) -> Duals:
    """The duals of all trade-offs before the first step, every field `[num_adapters, M]`."""
    primary = np.array([[name == one for name in objectives] for one in primaries], np.float32)
    levels = np.array(levels, np.float32)
    unit = 1.0 if thresholds == "given" else win_rates.mean(axis=0)
    begin = partial(start, win_rates=win_rates, log_weights=uniform(len(win_rates)), rules=rules)
    duals = jax.vmap(begin)(primary, levels, (levels * unit).astype(np.float32))
    return jax.tree.map(np.asarray, duals)


def check_duals(
    duals: Duals,
    win_rates: np.ndarray,
    adapter_names: Sequence[str],
    objectives: Sequence[str],
    rules: Rules,
    num_steps: int,
    max_weight: float,
    min_sample_size: float,
) -> None:
    """Rehearses the duals of a run; warns of constraints that do not bind.

    Raises:
      InputError: a dual becomes infinite, a constraint cannot be met, or few rows have all of the
        weight; with the numbers and what to change.
    """
    log_weights = uniform(len(win_rates))

    @jax.jit
    @jax.vmap
    def rehearsed(duals: Duals) -> tuple[Duals, jax.Array]:
        path = rehearse(duals, win_rates, log_weights, rules, num_steps)

        def sample_size(duals: Duals) -> jax.Array:
            densities = log_densities(duals, win_rates, win_rates, log_weights, rules.tau)
            return effective_sample_size(jnp.minimum(jnp.exp(densities), max_weight))

        return path, jax.lax.map(sample_size, path)

    path, sizes = jax.tree.map(np.asarray, rehearsed(duals))
    for number, label in enumerate(adapter_names):
        own = jax.tree.map(lambda leaf, n=number: leaf[n], path)
        for m, objective in enumerate(objectives):
            if not duals.primary[number, m]:
                told = f"adapter {label}: the constraint on {objective!r}"
                one = jax.tree.map(lambda leaf, m=m: leaf[:, m], own)
                _check_constraint(told, one, rules)
        least = int(sizes[number].argmin())
        if not sizes[number, least] >= min_sample_size:
            raise InputError(
                f"adapter {label}: at step {least} the weights of {len(win_rates)} rows are worth "
                f"{sizes[number, least]:.1f} of them, fewer than config.mopo.min_sample_size="
                f"{min_sample_size:g}; raise config.mopo.tau={rules.tau:g} or "
                f"config.mopo.refresh_every={rules.refresh_every}, bring the thresholds nearer to "
                "what the data have, or give more rows"
            )
    held = (duals.primary == 0).any(axis=0)
    met = (path.bounds >= path.thresholds) | (path.primary > 0)
    idle = held & met.all(axis=(0, 1))
    for number in np.flatnonzero(idle):
        _warn_idle(objectives[number], objectives, win_rates)
    logger.info(
        "rehearsed %d steps: multipliers end at %s, the weights of %d rows are worth %.0f or more",
        num_steps, np.round(path.multipliers[:, -1].max(axis=1), 2).tolist(), len(win_rates),
        sizes.min(),
    )  # fmt: skip


def _check_constraint(told: str, path: Duals, rules: Rules) -> None:
    """Raises InputError if a constraint goes wrong on its path, every field `[num_steps]`."""
    wrong = ~np.isfinite(path.multipliers + path.log_chi + path.bounds)
    if wrong.any():
        step = int(wrong.argmax())
        raise InputError(
            f"{told} has lambda {path.multipliers[step]} and log chi {path.log_chi[step]} at step "
            f"{step}; lower config.mopo.multiplier_rate or config.mopo.chi_rate"
        )
    remedy = (
        "lower config.mopo.levels or config.mopo.epsilon, or raise config.mopo.tau, which leaves "
        "more room"
    )
    capped = (path.multipliers >= rules.max_multiplier) & (path.bounds < path.thresholds)
    in_a_row = np.convolve(capped, np.ones(NUM_JUDGED), "valid") if len(capped) else capped
    if (in_a_row >= NUM_JUDGED).any():
        step = int((in_a_row >= NUM_JUDGED).argmax()) + NUM_JUDGED - 1
        raise InputError(
            f"{told} is infeasible: lambda has been at config.mopo.max_multiplier="
            f"{rules.max_multiplier:g} for {NUM_JUDGED} steps at step {step}, with a bound of "
            f"{path.bounds[step]:.4f} below the threshold {path.thresholds[step]:.4f}; {remedy}"
        )
    last = len(capped) - 1
    since = max(last - last % rules.refresh_every, last + 1 - NUM_JUDGED)
    slack = (path.bounds - path.thresholds)[since:]
    if slack.max() < -TOLERANCE:
        best = since + int(slack.argmax())
        raise InputError(
            f"{told} is not met: its bound is {path.bounds[best]:.4f} at best, with lambda "
            f"{path.multipliers[best]:.2f} at step {best}, below the threshold "
            f"{path.thresholds[best]:.4f}; {remedy}, or give lambda more steps or a larger "
            "config.mopo.multiplier_rate"
        )


def _warn_idle(name: str, objectives: Sequence[str], win_rates: np.ndarray) -> None:
    """Says that the constraints on an objective change nothing."""
    others = np.corrcoef(win_rates.T)[list(objectives).index(name)]
    told = ", ".join(
        f"{value:.2f} with {other}"
        for other, value in zip(objectives, others, strict=True)
        if other != name
    )
    logger.warning(
        "the constraints on %s never bind: its bounds are above their thresholds at every step. "
        "Its win rates correlate %s; raise config.mopo.levels, or take objectives that disagree",
        name, told,
    )  # fmt: skip
