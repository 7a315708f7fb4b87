"""Advantages and the loss of policies, against numbers worked out by hand and a known optimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paretohqd_jax.training.policy_losses import ADVANTAGES, grpo, k3, policy_losses, rloo

REWARDS = np.array([[[1, 0.2], [0, 0.9], [0.5, 0.5], [1, 0.8]]])
WEIGHTS = np.array([0.7, 0.3])
# Three actions, two objectives; the optimum is pi_ref exp(sum_m w_m r_m / beta), normalised.
REFERENCE = jnp.log(jnp.array([0.5, 0.3, 0.2]))
OF_ACTIONS = np.array([[1, -0.5], [0, 0.2], [-1, 1]])
BETA, OPTIMUM = 0.2, [0.947655, 0.049066, 0.003280]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        ("grpo", [0.484934, -1.182558, -0.399858, 1.097482]),
        ("gdpo", [0.285954, -1.065410, -0.470022, 1.249478]),
        ("rloo", [0.19, -0.463333, -0.156667, 0.43]),
    ],
)
def test_advantages_of_a_group(advantage, expected):
    found = ADVANTAGES[advantage](REWARDS, WEIGHTS)
    np.testing.assert_allclose(found, [expected], atol=1e-6)


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_equal_rewards_are_worth_nothing_and_move_no_other_group(advantage):
    equal = np.tile(np.float32([0.1, 0.7]), (1, 4, 1))
    found = ADVANTAGES[advantage](np.concatenate([equal, REWARDS]), WEIGHTS)
    assert (found[0] == 0).all()
    assert (np.sign(found[1]) == np.sign(ADVANTAGES[advantage](REWARDS, WEIGHTS)[0])).all()


def test_rewards_that_sum_alike_are_told_apart_by_gdpo_alone():
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    halves = np.array([0.5, 0.5])
    assert (grpo(rewards, halves) == 0).all()
    rewards = np.array([[[3.0, 0.0], [2.0, 1.0], [0.0, 3.0]], [[3.0, 0.1], [2.0, 1.1], [0.0, 3.1]]])
    np.testing.assert_allclose(grpo(rewards, halves), 0, atol=1e-9)
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.4]]])
    assert not np.allclose(*ADVANTAGES["gdpo"](rewards, halves)[0, :2], atol=1e-3)


def test_only_a_ratio_that_went_too_far_towards_the_advantage_has_no_gradient():
    sampled = jnp.log(jnp.array([0.2, 0.2, 0.2, 0.2]))
    log_probs = jnp.log(jnp.array([0.3, 0.1, 0.3, 0.1]))  # ratios 1.5 and 0.5
    advantages = jnp.array([1.0, 1.0, -1.0, -1.0])

    def loss(log_probs):
        return jnp.sum(policy_losses(log_probs, sampled, sampled, advantages, clip=0.2, kl=0.0))

    np.testing.assert_allclose(jax.grad(loss)(log_probs), [0, -0.5, 1.5, 0], rtol=1e-5)
    losses = policy_losses(log_probs, sampled, sampled, advantages, clip=0.2, kl=0.0)
    np.testing.assert_allclose(losses, [-1.2, -0.5, 1.5, 0.8], rtol=1e-5)


def test_k3_is_never_negative_and_is_the_divergence_on_average():
    policy = jax.nn.log_softmax(jnp.array([0.3, -1.0, 2.0]))
    values = k3(policy, REFERENCE)
    assert (values >= 0).all()
    divergence = jnp.sum(jnp.exp(policy) * (policy - REFERENCE))
    np.testing.assert_allclose(jnp.sum(jnp.exp(policy) * values), divergence, rtol=1e-5)


def minimise(loss, steps=3000, rate=0.1):
    """Logits from 0, by Adam with a rate that falls to 0; `loss` takes logits and the step."""
    optimizer = optax.adam(optax.linear_schedule(rate, 0, steps))

    @jax.jit
    def descend():
        def step(carry, number):
            logits, state = carry
            updates, state = optimizer.update(jax.grad(loss)(logits, number), state)
            return (optax.apply_updates(logits, updates), state), None

        logits = jnp.zeros(3)
        return jax.lax.scan(step, (logits, optimizer.init(logits)), jnp.arange(steps))[0][0]

    return jax.nn.softmax(descend())


def test_the_minimum_is_the_optimum_under_a_divergence():
    """Every action once, as a policy of equal chances would draw them; no ratio is clipped."""

    def loss(logits, step):
        log_probs = jax.nn.log_softmax(logits)
        sampled = jnp.full(3, -jnp.log(3.0))
        rewards = jnp.asarray(OF_ACTIONS @ WEIGHTS, jnp.float32)
        return jnp.mean(policy_losses(log_probs, sampled, REFERENCE, rewards, clip=9.0, kl=BETA))

    found = minimise(loss)
    np.testing.assert_allclose(found, OPTIMUM, atol=2e-5)
    np.testing.assert_allclose(found @ OF_ACTIONS, [0.944375, -0.460735], atol=5e-5)


def test_groups_that_the_policy_draws_itself_lead_there_too():
    def loss(logits, step):
        log_probs = jax.nn.log_softmax(logits)
        drawn = jax.random.categorical(jax.random.key(step), log_probs, shape=(32, 8))
        rewards = jnp.asarray(OF_ACTIONS, jnp.float32)[drawn] @ jnp.asarray(WEIGHTS, jnp.float32)
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) * 8 / 7  # as `rloo`
        sampled = jax.lax.stop_gradient(log_probs[drawn])
        return jnp.mean(
            policy_losses(
                log_probs[drawn], sampled, REFERENCE[drawn], advantages, clip=0.2, kl=BETA
            )
        )

    np.testing.assert_allclose(minimise(loss, 1000, 0.05), OPTIMUM, atol=0.02)
    drawn = OF_ACTIONS[np.array([[0, 1, 2, 2, 0, 0, 1, 0]])]
    rewards = drawn @ WEIGHTS
    expected = (rewards - rewards.mean(axis=1, keepdims=True)) * 8 / 7
    np.testing.assert_allclose(rloo(drawn, WEIGHTS), expected, rtol=1e-6)
