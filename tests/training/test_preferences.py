"""Preference losses on a model: in parts, stacked and combined as by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.training.conflicts import raco_coefficients
from paretohqd_jax.training.preference_losses import labelled_losses, objective_losses
from paretohqd_jax.training.preferences import Pairs, pair_log_probs, preference_objective
from paretohqd_jax.training.step import loss_and_gradient

BETA = 0.1
SIGMOID = {"beta": BETA, "loss": "sigmoid", "label_smoothing": 0.0}
WEIGHTS = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
NUM_PAIRS, LENGTH = 4, 8


@pytest.fixture(scope="module")
def setting():
    """A model, two adapters, and pairs for each: two in conflict, one that both decide, one tie."""
    config, params = load_pretrained("random:toy")
    model = Llama(config, LoraConfig(rank=2, alpha=4.0, dropout=0.0))
    adapters = jax.tree.map(
        lambda a: a + 0.05 * jnp.cos(jnp.arange(a.size)).reshape(a.shape),
        init_adapters(jax.random.key(1), config, model.lora, 2),
    )
    random = np.random.default_rng(0)
    shape = (2, NUM_PAIRS, 2)
    mask = np.arange(LENGTH) < random.integers(5, 9, shape)[..., None]
    pairs = Pairs(
        random.integers(0, 256, (*shape, LENGTH)).astype(np.int32), mask,
        mask & (np.arange(LENGTH) >= 3), random.normal(-20, 3, shape).astype(np.float32),
        np.broadcast_to(np.array([[1, -1], [-1, 1], [1, 1], [0, 1]], np.int8), (2, 4, 2)),
        np.broadcast_to(WEIGHTS[:, None], (2, 4, 2)),
        np.zeros((2, NUM_PAIRS), np.float32), np.ones((2, NUM_PAIRS), np.float32),
    )  # fmt: skip
    return model, params, adapters, pairs


def computed(setting, objective, parts):
    """Losses and gradients of both adapters side by side."""
    model, params, adapters, pairs = setting
    key = jax.random.key(0)
    each = lambda adapter, batch: loss_and_gradient(  # noqa: E731
        model, params, adapter, batch, key, parts, objective
    )
    return jax.device_get(jax.jit(jax.vmap(each))(adapters, pairs))


@pytest.fixture(scope="module")
def by_hand(setting):
    """Of the first adapter: the losses of the objectives, and their gradients as vectors."""
    model, params, adapters, pairs = setting
    adapter, batch = jax.tree.map(lambda x: x[0], (adapters, pairs))

    def losses(adapter):
        chosen, rejected = pair_log_probs(model, params, adapter, batch)
        margins = BETA * (chosen - batch.reference[:, 0] - rejected + batch.reference[:, 1])
        return objective_losses(labelled_losses(margins, batch.labels, BETA), batch.labels)

    values, jacobian = jax.jit(lambda adapter: (losses(adapter), jax.jacrev(losses)(adapter)))(
        adapter
    )
    flat = [leaf.reshape(2, -1) for leaf in jax.tree.leaves(jacobian)]
    return np.array(values), np.concatenate(flat, axis=1)


@pytest.mark.parametrize(
    ("combination", "options"),
    [("weighted", {}), ("raco", {"conflict": 0.4}), ("smooth_tchebycheff", {"temperature": 0.1})],
)
def test_losses_and_gradients_are_those_by_hand(setting, by_hand, combination, options):
    """Of two adapters side by side, in parts that have different numbers of decided pairs."""
    objective = preference_objective(combination, **SIGMOID, **options)
    values, jacobian = by_hand
    weights = WEIGHTS[0]
    expected, coefficients = weights @ values, weights
    if combination == "raco":
        coefficients = np.array(raco_coefficients(jacobian @ jacobian.T, weights, 0.4))
    if combination == "smooth_tchebycheff":
        worst = np.exp(weights * values / 0.1)
        expected, coefficients = 0.1 * np.log(worst.sum()), weights * worst / worst.sum()
    losses, gradients = computed(setting, objective, parts=2)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    flat = np.concatenate([leaf[0].ravel() for leaf in jax.tree.leaves(gradients)])
    scale = np.abs(jacobian).max()
    np.testing.assert_allclose(flat, coefficients @ jacobian, atol=1e-5 * scale, rtol=1e-4)
