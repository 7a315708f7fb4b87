"""SIPO's second alignment: its loss by hand, and what lies beneath stays as it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paretohqd_jax.models.lora import LoraConfig, low_rank_update, on_top, rank_of, with_rank
from paretohqd_jax.training import loop, realignment
from paretohqd_jax.training.preference_losses import PairLogProbs, dpo_margins, pair_losses
from paretohqd_jax.training.realignment import (
    Improvements,
    answer_lengths,
    realignment_losses,
    realignment_objective,
)
from paretohqd_jax.training.step import (
    Objective,
    OptimizerConfig,
    make_optimizer,
    on_held_ranks,
)

POLICY = PairLogProbs(jnp.array([-40.0, -55.0]), jnp.array([-42.0, -50.0]))
REFERENCE = PairLogProbs(jnp.array([-41.0, -52.0]), jnp.array([-41.5, -51.0]))
LENGTHS = jnp.array([20.0, 25.0])


def test_the_worked_example():
    losses = realignment_losses(POLICY, REFERENCE, LENGTHS, 0.1, 0.1)
    np.testing.assert_allclose(losses, [0.820957, 1.133015], atol=1e-6)
    np.testing.assert_allclose(losses.mean(), 0.976986, atol=1e-6)


def test_without_likelihood_it_is_dpo():
    losses = realignment_losses(POLICY, REFERENCE, LENGTHS, 0.1, 0.0)
    np.testing.assert_array_equal(losses, pair_losses(dpo_margins(POLICY, REFERENCE, 0.1), 0.1))


def test_an_answer_counts_by_its_own_tokens_or_as_the_authors_pad_it():
    token_mask = np.zeros((1, 2, 16), bool)
    token_mask[0, 0, :7] = token_mask[0, 1, :11] = True  # a prompt of four tokens
    response_mask = token_mask & (np.arange(16) >= 4)
    batch = Improvements(np.zeros((1, 2, 16)), token_mask, response_mask, np.zeros((1, 2)))
    assert answer_lengths(batch, "response") == 3
    assert answer_lengths(batch, "padded") == 11


def test_the_objective_is_the_mean_of_the_losses_at_the_length_asked_for(monkeypatch):
    monkeypatch.setattr(realignment, "pair_log_probs", lambda *_: POLICY)
    token_mask = np.arange(50) < np.array([[[24], [30]], [[35], [40]]])  # prompts of 4 and 10
    response_mask = token_mask & (np.arange(50) >= np.array([4, 10])[:, None, None])
    batch = Improvements(None, token_mask, response_mask, jnp.stack(REFERENCE, axis=1))
    how = {"beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "nll_weight": 0.1}
    objectives = (realignment_objective(**how, nll_length=each) for each in ("response", "padded"))
    found = [objective.loss(None, None, None, batch, None) for objective in objectives]
    # 4 / 30 and 5.5 / 40 in place of 4 / 20 and 5.5 / 25.
    padded = (0.620957 + 0.913015 + 4 / 30 + 5.5 / 40) / 2
    np.testing.assert_allclose(found, [0.976986, padded], atol=1e-6)


def stack(seed, rank):
    random = np.random.default_rng(seed)
    shapes = {"a": (2, 5, rank), "b": (2, rank, 4)}
    factors = {name: jnp.asarray(random.normal(size=shape), jnp.float32)
               for name, shape in shapes.items()}  # fmt: skip
    return {"layers": {"v_proj": factors}}


def test_adapters_on_top_of_others_give_the_sum_of_their_updates():
    beneath, above = stack(0, 3), stack(1, 2)
    both = on_top(beneath, above)
    assert rank_of(both) == 5
    x = jnp.ones((1, 2, 5))
    updates = [
        low_rank_update(x, *(each["layers"]["v_proj"][name][0] for name in "ab"))
        for each in (beneath, above, both)
    ]
    np.testing.assert_allclose(updates[0] + updates[1], updates[2], rtol=1e-5)
    lora = LoraConfig(rank=3, alpha=1.5)
    assert with_rank(lora, 6) == LoraConfig(rank=6, alpha=3.0)


def test_training_on_top_is_training_alone_beside_a_constant():
    """The same steps as of the upper adapter with the lower one's update as a given number."""
    beneath, above = stack(0, 3), stack(1, 2)
    config = OptimizerConfig(0.1, 4, weight_decay=0.5, held_ranks=3)

    def sum_of_products(adapter):
        factors = adapter["layers"]["v_proj"]
        return jnp.sum((factors["a"] @ factors["b"] - 1) ** 2)

    def alone(adapter):
        given = beneath["layers"]["v_proj"]
        factors = adapter["layers"]["v_proj"]
        return jnp.sum((given["a"] @ given["b"] + factors["a"] @ factors["b"] - 1) ** 2)

    objective = Objective(lambda model, params, adapter, *_: sum_of_products(adapter), len)
    held = on_held_ranks(objective, 3)
    trained = train(lambda adapter: held.loss(None, None, adapter, None, None),
                    on_top(beneath, above), config)  # fmt: skip
    expected = train(alone, above, OptimizerConfig(0.1, 4, weight_decay=0.5))
    for name, axis in (("a", -1), ("b", -2)):
        lower, upper = jnp.split(trained["layers"]["v_proj"][name], [3], axis)
        np.testing.assert_array_equal(lower, beneath["layers"]["v_proj"][name])
        np.testing.assert_allclose(upper, expected["layers"]["v_proj"][name], rtol=1e-5)


def test_training_stops_the_gradient_of_what_stays(monkeypatch):
    class Stopped(Exception):
        pass

    def stop(objective, held_ranks):
        raise Stopped(held_ranks)

    monkeypatch.setattr(loop, "on_held_ranks", stop)
    with pytest.raises(Stopped, match="3"):
        loop.fine_tune(
            None, None, None, None, OptimizerConfig(0.1, 4, held_ranks=3), mesh=None,
            batch_size=1, seed=0, adapter_names=["w"], directory=None, checkpoint_every=1,
            log_directory=None, meta={}, description="",
        )  # fmt: skip


def train(loss, adapter, config):
    optimizer = make_optimizer(config)
    state = optimizer.init(adapter)

    @jax.jit
    def step(adapter, state):
        updates, state = optimizer.update(jax.grad(loss)(adapter), state, adapter)
        return optax.apply_updates(adapter, updates), state

    for _ in range(config.num_steps):
        adapter, state = step(adapter, state)
    return adapter
