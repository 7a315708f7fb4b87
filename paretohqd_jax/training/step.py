"""One optimisation step for a whole stack of adapters over a shared, frozen base model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from paretohqd_jax.data.batches import Examples
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import next_token_log_probs
from paretohqd_jax.models.lora import hold
from paretohqd_jax.models.sharding import vmap_adapters
from paretohqd_jax.training.losses import sft_loss

PyTree = Any


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule, "linear" or "constant": the settings of every adapter of a stack.

    The first `held_ranks` of each adapter stay as they are.
    """

    learning_rate: float
    num_steps: int
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    held_ranks: int = 0
    schedule: str = "linear"


class TrainState(NamedTuple):
    """What a step changes. Every leaf but `step` has a leading axis `[num_adapters, ...]`."""

    step: jax.Array  # int32 []
    adapters: PyTree  # float32
    optimizer_state: PyTree
    carried: PyTree = ()  # what the objective carries from step to step, if anything


class Objective(NamedTuple):
    """What training minimises: a mean over terms, such as response tokens, of a batch.

    A batch is a NamedTuple of arrays whose first axis is that of its rows. There may be several
    such means: their sum is minimised, or where `combine` is given, what that makes of them. What
    is `carried` from step to step goes on before a step, and says what batch the loss is of.
    """

    # (model, params, adapter, batch, dropout key) -> float32 [] or [M], the loss of one adapter
    loss: Callable[[Llama, PyTree, PyTree, PyTree, jax.Array], jax.Array]
    # batch -> how many terms each mean is over, [] or [M]
    num_terms: Callable[[PyTree], jax.Array]
    # (batch, losses [M], their gradients, every leaf [M, ...]) -> loss [] and gradient
    combine: Callable[[PyTree, jax.Array, PyTree], tuple[jax.Array, PyTree]] | None = None
    # as `loss`, which it returns too: of what may be right or wrong, how much is right and of how
    # much, float32 [2]; told of held-out rows
    loss_and_right: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    # At the first step, every leaf [num_adapters, ...]
    carried: PyTree = ()
    # (carried, batch, step), of one adapter -> carried, batch, metrics, each []
    go_on: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree, PyTree]] | None = None


class StepShardings(NamedTuple):
    """Where the arguments and results of a train step lie on a mesh."""

    state: PyTree
    params: PyTree
    batch: PyTree
    keys: PyTree
    metrics: PyTree


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """The rate at each step: it rises over the warm-up and falls linearly to 0, or stays."""
    decay_steps = config.num_steps - config.warmup_steps
    last = {"linear": 0.0, "constant": config.learning_rate}[config.schedule]
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps),
            optax.linear_schedule(config.learning_rate, last, decay_steps),
        ],
        boundaries=[config.warmup_steps],
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(learning_rate_schedule(config), weight_decay=config.weight_decay),
    )
    if not config.held_ranks:
        return optimizer
    # Weight decay would move what no gradient reaches.
    stop = optax.stateless(lambda updates, _: hold(updates, config.held_ranks, jnp.zeros_like))
    return optax.chain(optimizer, stop)


def on_held_ranks(objective: Objective, held_ranks: int) -> Objective:
    """The same objective of adapters whose first ranks get no gradient."""

    def loss(
        model: Llama, params: PyTree, adapter: PyTree, batch: PyTree, dropout_key: jax.Array
    ) -> jax.Array:
        adapter = hold(adapter, held_ranks, jax.lax.stop_gradient)
        return objective.loss(model, params, adapter, batch, dropout_key)

    return objective._replace(loss=loss)


def init_train_state(
    adapters: PyTree, optimizer: optax.GradientTransformation, carried: PyTree = ()
) -> TrainState:
    """A fresh optimiser state for each adapter of the stack."""
    optimizer_state = jax.vmap(optimizer.init)(adapters)
    return TrainState(jnp.zeros((), jnp.int32), adapters, optimizer_state, carried)


def adapter_loss(
    model: Llama, params: PyTree, adapter: PyTree, batch: Examples, dropout_key: jax.Array
) -> jax.Array:
    """The SFT loss of one adapter on its batch (`[batch, length]` arrays), float32 scalar."""
    variables = {"params": params, "lora": adapter}
    log_probs = next_token_log_probs(model, variables, batch.tokens, batch.token_mask, dropout_key)
    return sft_loss(log_probs, batch.response_mask[:, 1:])


SFT = Objective(adapter_loss, lambda batch: jnp.sum(batch.response_mask[:, 1:]))


def loss_and_gradient(
    model: Llama,
    params: PyTree,
    adapter: PyTree,
    batch: PyTree,
    dropout_key: jax.Array,
    num_microbatches: int = 1,
    objective: Objective = SFT,
) -> tuple[jax.Array, PyTree]:
    """The objective's loss and its gradient, float32, computed for a part of the rows at a time.

    A loss is a mean over the terms of the whole batch, so each part adds its own mean times its
    share of them. Activations and logits exist for `batch / num_microbatches` rows. Losses that are
    combined share a forward pass and have a backward pass each.
    """
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    if num_rows % num_microbatches:
        raise InputError(
            f"batch_size ({num_rows}) must be divisible by num_microbatches ({num_microbatches})"
        )
    num_terms = jnp.maximum(objective.num_terms(batch), 1)

    def losses_of(adapter: PyTree, rows: PyTree, key: jax.Array) -> jax.Array:
        share = objective.num_terms(rows) / num_terms
        losses = share * objective.loss(model, params, adapter, rows, key)
        return losses if objective.combine else jnp.sum(losses)

    def add_part(
        total: tuple[jax.Array, PyTree], part: tuple[PyTree, jax.Array]
    ) -> tuple[tuple[jax.Array, PyTree], None]:
        losses, pull_back = jax.vjp(lambda adapter: losses_of(adapter, *part), adapter)
        if objective.combine:
            # One after the other: side by side they take the memory of as many adapters, and under
            # another vmap XLA's CPU compiler gets long rows wrong (jaxlib 0.10.2).
            gradients = jax.lax.map(lambda each: pull_back(each)[0], jnp.eye(len(losses)))
        else:
            gradients = pull_back(jnp.float32(1))[0]
        return jax.tree.map(jnp.add, total, (losses, gradients)), None

    # Every num_microbatches-th row: a device that holds some of the rows takes part in each scan.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch
    )
    keys = jax.random.split(dropout_key, num_microbatches)
    shape = num_terms.shape if objective.combine else ()
    nothing = jax.tree.map(lambda x: jnp.zeros(shape + x.shape), (jnp.float32(0), adapter))
    losses, gradients = jax.lax.scan(add_part, nothing, (parts, keys))[0]
    if objective.combine:
        return objective.combine(batch, losses, gradients)
    return losses, gradients


def make_train_step(
    model: Llama,
    optimizer: optax.GradientTransformation,
    shardings: StepShardings | None = None,
    num_microbatches: int = 1,
    objective: Objective = SFT,
) -> Callable[[TrainState, PyTree, PyTree, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds `train_step(state, params, batch, keys) -> (state, metrics)`, jitted.

    `batch` holds `[num_adapters, batch, ...]` arrays and `keys` `[num_adapters]` keys, one per
    adapter and the same at every step. Loss, gradient, clipping and AdamW are those of a single
    adapter under `jax.vmap`: adapters share nothing but the base weights, so training them stacked
    equals training them one by one. `state` is donated. Metrics are `[num_adapters]` float32: the
    loss and the gradient's norm before the update, the adapter's norm after it, and those of the
    objective.
    `shardings` say where all of them lie on the mesh in context, if there is one.
    """

    def adapter_step(
        params: PyTree,
        adapter: PyTree,
        optimizer_state: PyTree,
        carried: PyTree,
        batch: PyTree,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[PyTree, PyTree, PyTree, dict[str, jax.Array]]:
        told = {}
        if objective.go_on is not None:
            carried, batch, told = objective.go_on(carried, batch, step)
        loss, gradients = loss_and_gradient(
            model, params, adapter, batch, key, num_microbatches, objective
        )
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, adapter)
        adapter = optax.apply_updates(adapter, updates)
        norms = {"grad_norm": optax.global_norm(gradients), "norm": optax.global_norm(adapter)}
        return adapter, optimizer_state, carried, {"loss": loss, **norms, **told}

    def train_step(
        state: TrainState, params: PyTree, batch: PyTree, keys: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, state.step)
        *stacks, metrics = vmap_adapters(adapter_step, in_axes=(None, 0, 0, 0, 0, 0, None))(
            params, state.adapters, state.optimizer_state, state.carried, batch, keys, state.step
        )
        return TrainState(state.step + 1, *stacks), metrics

    if shardings is None:
        return jax.jit(train_step, donate_argnums=0)
    state, params, batch, keys, metrics = shardings
    return jax.jit(
        train_step,
        in_shardings=(state, params, batch, keys),
        out_shardings=(state, metrics),
        donate_argnums=0,
    )
