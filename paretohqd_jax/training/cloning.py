"""Weighted cloning of data, whose weights follow the duals of a constraint (MOPO).

    max over psi of E_ref[rho log pi_psi(y | x)]

rho gets no gradient: a row's weight is a number, how much more often the policy that the duals
stand for gives this response than the data do. As it is learnt, the duals go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.constraints.duals import Duals, Rules, go_on, log_densities
from paretohqd_jax.constraints.lagrangian import dual_value, effective_sample_size
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.log_probs import response_log_probs
from paretohqd_jax.training.metrics import CONSTRAINT
from paretohqd_jax.training.step import Objective

PyTree = Any


class ComparedRows(NamedTuple):
    """Rows of the data with what they win; leading axes are free, as those of `Examples`."""

    tokens: jax.Array  # int32 [..., length], padded on the right
    token_mask: jax.Array  # bool [..., length], True on real tokens
    response_mask: jax.Array  # bool [..., length], True on response tokens and the final EOS
    win_rates: jax.Array  # float32 [..., num_objectives]


class WeightedRows(NamedTuple):
    """Rows as they are cloned."""

    tokens: jax.Array
    token_mask: jax.Array
    response_mask: jax.Array
    weights: jax.Array  # float32 [...], of mean 1 over all rows, but for what is clipped


def clone_loss(
    model: Llama, params: PyTree, adapter: PyTree, batch: WeightedRows, dropout_key: jax.Array
) -> jax.Array:
    """Minus the weighted log-probability of the responses, per response token; a scalar."""
    log_probs = response_log_probs(
        model, {"params": params, "lora": adapter}, *batch[:3], dropout_key
    )
    return -jnp.sum(batch.weights * log_probs) / jnp.maximum(_num_tokens(batch), 1)


def _num_tokens(batch: WeightedRows) -> jax.Array:
    return jnp.sum(batch.response_mask[:, 1:])


def cloning_objective(
    duals: Duals, win_rates: np.ndarray, objectives: Sequence[str], rules: Rules, max_weight: float
) -> Objective:
    """What is minimised, and how the duals go on before each step.

    Args:
      duals: before the first step, every field `[num_adapters, num_objectives]`.
      win_rates: of all rows, `[num_rows, num_objectives]`.
      objectives: their names, for metrics.
      rules: of the duals.
      max_weight: c, what weights are clipped at.
    """
    log_weights = uniform(len(win_rates))

    def next_duals(
        duals: Duals, batch: ComparedRows, step: jax.Array
    ) -> tuple[Duals, WeightedRows, dict[str, jax.Array]]:
        duals = go_on(duals, win_rates, log_weights, step, rules)
        densities = partial(
            log_densities, duals, win_rates=win_rates, log_weights=log_weights, tau=rules.tau
        )
        weights = jnp.minimum(jnp.exp(densities(batch.win_rates)), max_weight)
        told = _told(duals, densities(win_rates), win_rates, objectives, rules, max_weight)
        return duals, WeightedRows(*batch[:3], weights), told

    return Objective(clone_loss, _num_tokens, carried=duals, go_on=next_duals)


def uniform(num_rows: int) -> np.ndarray:
    """The log-weights of rows that count alike, `[num_rows]`."""
    return np.full(num_rows, -np.log(num_rows), np.float32)


def _told(
    duals: Duals,
    log_densities: jax.Array,
    win_rates: np.ndarray,
    objectives: Sequence[str],
    rules: Rules,
    max_weight: float,
) -> dict[str, jax.Array]:
    """Where the duals are. Of the primary objective the win rate alone is a number."""
    policy = jnp.exp(log_densities) / len(win_rates)
    expected = policy @ win_rates
    of_objectives = {
        "multiplier": duals.multipliers,
        "chi": jnp.exp(duals.log_chi),
        "bound": duals.bounds,
        "threshold": duals.thresholds,
    }
    told = {
        f"{name}_{objective}": jnp.where(duals.primary[number] > 0, jnp.nan, values[number])
        for name, values in of_objectives.items()
        for number, objective in enumerate(objectives)
    }
    told |= {f"win_rate_{name}": expected[number] for number, name in enumerate(objectives)}
    reference = jax.nn.log_softmax(win_rates @ duals.reference / rules.tau)
    told["dual_value"] = dual_value(
        duals.multipliers, win_rates @ duals.primary, win_rates, duals.thresholds, rules.tau,
        reference,
    )  # fmt: skip
    told["sample_size"] = effective_sample_size(jnp.minimum(jnp.exp(log_densities), max_weight))
    told["kl"] = policy @ log_densities
    return {CONSTRAINT + name: value for name, value in told.items()}
