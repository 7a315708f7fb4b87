"""Preference losses on a model: in parts, stacked and combined as by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_adapter import LORA, golden_adapter

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.training.conflicts import raco_coefficients
from paretohqd_jax.training.preference_losses import labelled_losses, objective_losses
from paretohqd_jax.training.preferences import Pairs, pair_log_probs, preference_objective
from paretohqd_jax.training.step import (
    OptimizerConfig,
    init_train_state,
    loss_and_gradient,
    make_optimizer,
    make_train_step,
)

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

    gradients = [
        jax.jit(jax.grad(lambda adapter, m=m: losses(adapter)[m]))(adapter) for m in (0, 1)
    ]
    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(each)]) for each in gradients]
    return np.array(losses(adapter)), np.stack(flat)


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


def test_right_are_the_labels_that_have_the_sign_of_the_margin(setting, by_hand):
    """Each counted by the weight of its objective; losses are those that training has."""
    model, params, adapters, pairs = setting
    adapter, batch = jax.tree.map(lambda x: x[0], (adapters, pairs))
    objective = preference_objective("raco", **SIGMOID, conflict=0.4)
    (losses, right), (chosen, rejected) = jax.jit(
        lambda adapter: (
            objective.loss_and_right(model, params, adapter, batch, jax.random.key(0)),
            pair_log_probs(model, params, adapter, batch),
        )
    )(adapter)
    np.testing.assert_allclose(losses, by_hand[0], rtol=1e-5)
    margins = np.array(chosen - rejected) + np.diff(batch.reference)[:, 0]
    agree = (batch.labels * margins[:, None] > 0).sum(axis=0)
    np.testing.assert_allclose(right, [WEIGHTS[0] @ agree, WEIGHTS[0] @ [3, 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("combination", "options", "expected"),
    [
        ("raco", {"conflict": 0.4}, 0.7 * 0.5 + 0.3 * 2.0),
        ("smooth_tchebycheff", {"temperature": 0.1}, 0.1 * np.log(np.exp(3.5) + np.exp(6.0))),
    ],
)
def test_losses_are_combined_without_gradients_too(setting, combination, options, expected):
    """As those on held-out pairs are."""
    objective = preference_objective(combination, **SIGMOID, **options)
    batch = jax.tree.map(lambda x: x[0], setting[3])
    loss, gradients = objective.combine(batch, jnp.array([0.5, 2.0]), ())
    assert gradients == ()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_adapters_side_by_side_get_what_each_gets_alone(setting):
    model, params, adapters, pairs = setting
    objective = preference_objective("raco", **SIGMOID, conflict=0.4)
    together = computed(setting, objective, parts=2)
    for number in range(2):
        own = jax.tree.map(lambda x, n=number: x[n : n + 1], (adapters, pairs))
        alone = computed((model, params, *own), objective, parts=2)
        for one, both in zip(*map(jax.tree.leaves, (alone, together)), strict=True):
            np.testing.assert_allclose(both[number], one[0], rtol=1e-4, atol=1e-6)


def test_five_steps_of_dpo_are_those_of_trl():
    """On a tiny Llama with an adapter, as golden/make_dpo.py had TRL's trainer take them."""
    golden = np.load(Path(__file__).parent / "golden" / "dpo.npz")
    untied = Path(__file__).parents[1] / "models" / "golden" / "untied"
    config, params = load_pretrained(str(untied), "float32")
    model = Llama(config, dataclasses.replace(LORA, dropout=0.0))
    adapter, num_pairs = golden_adapter(config), len(golden["tokens"])
    ones, zeros = np.ones((num_pairs, 1), np.float32), np.zeros(num_pairs, np.float32)
    pairs = Pairs(
        golden["tokens"], golden["token_mask"], golden["response_mask"], golden["reference"],
        ones.astype(np.int8), ones, zeros, ones[:, 0],
    )  # fmt: skip
    without = jax.tree.map(np.zeros_like, adapter)
    log_probs = jax.jit(lambda adapter: pair_log_probs(model, params, adapter, pairs))
    for name, its_adapter in (("policy", adapter), ("reference", without)):
        found = np.stack(log_probs(its_adapter), axis=1)
        np.testing.assert_allclose(found, golden[name], rtol=1e-5)

    optimizer = make_optimizer(OptimizerConfig(1e-2, num_steps=5, weight_decay=0.1))
    step = make_train_step(model, optimizer, objective=preference_objective("weighted", **SIGMOID))
    stack, batch = jax.tree.map(lambda x: jnp.asarray(x)[None], (adapter, pairs))
    state, told = init_train_state(stack, optimizer), []
    for _ in range(6):  # the last shows what five have reached
        state, metrics = step(state, params, batch, jax.random.split(jax.random.key(0), 1))
        told.append((float(metrics["loss"][0]), float(metrics["grad_norm"][0])))
    losses, norms = np.array(told).T
    np.testing.assert_allclose(losses, golden["losses"], rtol=2e-5)
    np.testing.assert_allclose(norms[:5], golden["grad_norms"], rtol=1e-4)
