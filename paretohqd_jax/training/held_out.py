"""The loss of adapters in training on rows that they are not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.sharding import vmap_adapters
from paretohqd_jax.training.placement import Placement, place_batch
from paretohqd_jax.training.step import Objective

PyTree = Any


def held_out_measures(
    model: Llama, placed: Placement, objective: Objective, examples: PyTree, batch_size: int
) -> Callable[[PyTree, PyTree], dict[str, np.ndarray]]:
    """A function of adapters and base weights: how each does on its rows, without dropout.

    Args:
      model: the network in training.
      placed: where its arrays lie.
      objective: what training minimises.
      examples: a NamedTuple of `[num_adapters, num_rows, ...]` arrays; rows beyond a multiple of
        `batch_size` are left out.
      batch_size: rows of each adapter that are computed together.

    Returns:
      A function `(adapters, params) -> {"loss": float32 [num_adapters]}`, with the "accuracy"
      besides, the share that is right, where the objective knows of right and wrong.
    """
    calm = Llama(model.config, dataclasses.replace(model.lora, dropout=0.0))
    measured = objective.loss_and_right or (lambda *given: (objective.loss(*given), jnp.ones(2)))

    def one(params: PyTree, adapter: PyTree, batch: PyTree) -> tuple[jax.Array, ...]:
        loss, right = measured(calm, params, adapter, batch, jax.random.key(0))
        return loss, objective.num_terms(batch), right

    of_batch = jax.jit(
        lambda adapters, params, batch: vmap_adapters(one, (None, 0, 0))(params, adapters, batch),
        in_shardings=(placed.step.state.adapters, placed.step.params, placed.step.batch),
        out_shardings=placed.step.metrics,
    )
    num_adapters, num_rows = jax.tree.leaves(examples)[0].shape[:2]
    starts = range(0, num_rows - batch_size + 1, batch_size)
    rows = [np.tile(np.arange(start, start + batch_size), (num_adapters, 1)) for start in starts]
    batches = [place_batch(placed, examples, each) for each in rows]
    some = jax.tree.map(lambda array: array[:, :1], examples)

    @jax.jit
    def total(losses: PyTree) -> jax.Array:
        """Of each adapter's losses `[num_adapters, M]`."""
        return jax.vmap(lambda batch, own: objective.combine(batch, own, ())[0])(some, losses)

    def measure(adapters: PyTree, params: PyTree) -> dict[str, np.ndarray]:
        parts = jax.device_get([of_batch(adapters, params, batch) for batch in batches])
        losses, num_terms, right = (
            np.stack(each)[:, :num_adapters] for each in zip(*parts, strict=True)
        )
        # A mean over the terms of all batches: one that has none, such as of ties, does not count.
        losses = (losses * num_terms).sum(axis=0) / np.maximum(num_terms.sum(axis=0), 1)
        if objective.combine:
            losses = np.asarray(total(losses))
        measures = {"loss": losses.reshape(num_adapters, -1).sum(axis=1)}
        if objective.loss_and_right:
            agreeing, every = right.sum(axis=0).T
            measures["accuracy"] = agreeing / np.where(every > 0, every, np.nan)
        return measures

    return measure
