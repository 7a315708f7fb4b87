"""Objectives that teach a language model by preference pairs, for the one trainer.

`preference_losses` has the losses as functions of log-probabilities; here these come from the
model, both responses of a pair in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import response_log_probs
from paretohqd_jax.training.conflicts import raco_coefficients
from paretohqd_jax.training.preference_losses import (
    PairLogProbs,
    dpo_margins,
    labelled_losses,
    modpo_margins,
    objective_losses,
    smooth_tchebycheff,
)
from paretohqd_jax.training.step import Objective

PyTree = Any


class Pairs(NamedTuple):
    """Preference pairs, the chosen response first; leading axes are free."""

    tokens: jax.Array  # int32 [..., 2, length], prompt and response, padded on the right
    token_mask: jax.Array  # bool [..., 2, length], True on real tokens
    response_mask: jax.Array  # bool [..., 2, length], True on response tokens and the final EOS
    reference: jax.Array  # float32 [..., 2], log-probabilities under the reference model
    labels: jax.Array  # int8 [..., num_objectives], 1 or -1, 0 where none knows
    weights: jax.Array  # float32 [..., num_objectives], the same for all pairs of an adapter
    # What the margin must reach beyond: the model's, less `others`, is divided by `share` (MODPO).
    others: jax.Array  # float32 [...]
    share: jax.Array  # float32 [...]


def preference_objective(
    combination: str, *, beta: float, loss: str, label_smoothing: float, **options: float
) -> Objective:
    """What is minimised: of each objective the mean loss of the pairs it decides, made into one.

    Args:
      combination: "weighted", their weighted sum, or a name in COMBINATIONS.
      beta: of the margins, how much the model is held to the reference.
      loss: of `preference_losses.pair_losses`.
      label_smoothing: of `preference_losses.pair_losses`.
      **options: of the combination.
    """

    def losses_and_right(
        model: Llama, params: PyTree, adapter: PyTree, batch: Pairs, dropout_key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        margins = dpo_margins(
            pair_log_probs(model, params, adapter, batch, dropout_key),
            PairLogProbs(*batch.reference.T), beta,
        )  # fmt: skip
        margins = modpo_margins(margins, batch.others[:, None], batch.share, jnp.ones(1))
        of_pairs = labelled_losses(margins, batch.labels, beta, loss, label_smoothing)
        of_objectives = objective_losses(of_pairs, batch.labels)
        losses = of_objectives if combine else batch.weights[0] * of_objectives
        return losses, _right(margins, batch)

    def losses(*arguments: Any) -> jax.Array:
        return losses_and_right(*arguments)[0]

    combine = None
    if combination != "weighted":
        combine = partial(COMBINATIONS[combination], **options)
    num_terms = lambda batch: jnp.sum(batch.labels != 0, axis=0)  # noqa: E731
    return Objective(losses, num_terms, combine, loss_and_right=losses_and_right)


def _right(margins: jax.Array, batch: Pairs) -> jax.Array:
    """The weights of the labels that have the sign of the margin, summed, and those of all."""
    decided = batch.labels != 0
    agree = decided & (batch.labels * margins[:, None] > 0)
    return jnp.stack([jnp.sum(batch.weights * x) for x in (agree, decided)])


def pair_log_probs(
    model: Llama,
    params: PyTree,
    adapter: PyTree,
    batch: Pairs,
    dropout_key: jax.Array | None = None,
) -> PairLogProbs:
    """Of both responses of the pairs of a batch, computed together."""
    tokens, token_mask, response_mask = (x.reshape(-1, x.shape[-1]) for x in batch[:3])
    variables = {"params": params, "lora": adapter}
    log_probs = response_log_probs(model, variables, tokens, token_mask, response_mask, dropout_key)
    return PairLogProbs(*log_probs.reshape(-1, 2).T)


def _raco(
    batch: Pairs, losses: jax.Array, gradients: PyTree, conflict: float
) -> tuple[jax.Array, PyTree]:
    """The weighted loss, and the conflict-averse gradient that stands in for its own."""
    weights = batch.weights[0]
    flat = [leaf.reshape(len(weights), -1) for leaf in jax.tree.leaves(gradients)]
    products = (jnp.matmul(leaf, leaf.T, precision="highest") for leaf in flat)
    gram = sum(products, jnp.zeros((len(weights), len(weights))))
    return weights @ losses, _weighted(gradients, raco_coefficients(gram, weights, conflict))


def _smooth_tchebycheff(
    batch: Pairs, losses: jax.Array, gradients: PyTree, temperature: float
) -> tuple[jax.Array, PyTree]:
    loss, coefficients = jax.value_and_grad(smooth_tchebycheff)(
        losses, batch.weights[0], temperature
    )
    return loss, _weighted(gradients, coefficients)


def _weighted(gradients: PyTree, coefficients: jax.Array) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.tensordot(coefficients, leaf, 1), gradients)


COMBINATIONS: dict[str, Callable[..., tuple[jax.Array, PyTree]]] = {
    "raco": _raco,
    "smooth_tchebycheff": _smooth_tchebycheff,
}
