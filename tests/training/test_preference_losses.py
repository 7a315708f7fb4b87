"""Numbers are those of a worked example: beta 0.1, two pairs, weights 0.7 and 0.3."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.sampling.logit_mixtures import PRODUCT, mix
from paretohqd_jax.training.preference_losses import (
    PairLogProbs,
    dpo_margins,
    labelled_losses,
    modpo_margins,
    objective_losses,
    pair_losses,
    smooth_tchebycheff,
)

BETA = 0.1
POLICY = PairLogProbs(jnp.array([-40.0, -55.0]), jnp.array([-42.0, -50.0]))
REFERENCE = PairLogProbs(jnp.array([-41.0, -52.0]), jnp.array([-41.5, -51.0]))
# Of one objective beside the trained one: rewards of the chosen minus those of the rejected.
OTHER_MARGINS = jnp.array([[0.4 + 0.2], [-1.0 - 0.5]])


def margins() -> jax.Array:
    return dpo_margins(POLICY, REFERENCE, BETA)


def close(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_dpo():
    close(margins(), [0.15, -0.40])
    close(pair_losses(margins(), BETA), [0.620957, 0.913015])
    close(pair_losses(margins(), BETA, "hinge"), [0.85, 1.40])
    close(pair_losses(margins(), BETA, "ipo"), [(1.5 - 5) ** 2, (-4 - 5) ** 2])
    right, wrong = pair_losses(margins(), BETA), pair_losses(-margins(), BETA)
    smoothed = pair_losses(margins(), BETA, label_smoothing=0.2)
    close(smoothed, 0.8 * right + 0.2 * wrong)
    with pytest.raises(ValueError, match="'hinges' is not one of sigmoid, hinge, ipo"):
        pair_losses(margins(), BETA, "hinges")


def test_swapping_the_responses_negates_the_margin():
    swapped = dpo_margins(PairLogProbs(*POLICY[::-1]), PairLogProbs(*REFERENCE[::-1]), BETA)
    close(swapped, -margins())


def test_modpo():
    asked = modpo_margins(margins(), OTHER_MARGINS, 0.7, jnp.array([0.3]))
    close(asked, [-0.028571 - 0.014286, 0 + 0.071429])
    close(pair_losses(asked, BETA), [0.714805, 0.658071])
    alone = modpo_margins(margins(), OTHER_MARGINS, 1.0, jnp.array([0.0]))
    close(alone, margins())


def test_loss_weighting_counts_a_conflict_by_its_label():
    labels = jnp.array([[1, 1], [1, -1]])
    losses = labelled_losses(margins(), labels, BETA)
    weights = jnp.array([0.6, 0.4])
    close(losses @ weights, [0.620957, 0.753015])
    close(objective_losses(losses, labels) @ weights, 0.686986)


def test_the_optimum_of_loss_weighting_mixes_probabilities():
    """A fully conflicting pair: the margin is the log-odds of the weights."""
    best, labels = jnp.log(jnp.array([0.7 / 0.3])), jnp.array([[1, -1]])

    def loss(margin):
        losses = labelled_losses(margin, labels, BETA)
        return objective_losses(losses, labels) @ jnp.array([0.7, 0.3])

    close(best, [0.847298])
    close(loss(best), 0.610864)
    close(jax.grad(loss)(best), [0.0])


def test_an_undecided_label_counts_neither_above_nor_below():
    labels = jnp.array([[1, 0], [1, 0]])
    losses = labelled_losses(margins(), labels, BETA, "hinge")
    close(losses, [[0.85, 0], [1.40, 0]])
    close(objective_losses(losses, labels), [1.125, 0.0])
    half = jnp.array([[1, 0], [0, -1]])
    close(objective_losses(labelled_losses(margins(), half, BETA), half), [0.620957, 0.513015])


@pytest.mark.parametrize(
    ("weights", "temperature", "value", "effective"),
    [
        ((0.5, 0.5), 0.1, 0.477385, (0.094211, 0.405789)),
        ((0.5, 0.5), 1.0, 1.079303, (0.231779, 0.268221)),
        ((0.8, 0.2), 0.1, 0.500996, (0.766862, 0.008285)),
        ((0.8, 0.2), 1.0, 1.045118, (0.462321, 0.084420)),
    ],
)
def test_smooth_tchebycheff(weights, temperature, value, effective):
    losses, weights = jnp.array([0.620957, 0.913015]), jnp.array(weights)
    close(smooth_tchebycheff(losses, weights, temperature), value)
    close(jax.grad(smooth_tchebycheff)(losses, weights, temperature), effective)


REFERENCE_POLICY = jnp.array([0.5, 0.3, 0.2])
REWARDS = jnp.array([[1.0, 0.0, -1.0], [-0.5, 0.2, 1.0]])


WEIGHTS = jnp.array([0.7, 0.3])
FIRST, SECOND = map(jnp.array, zip(*itertools.permutations(range(3), 2), strict=True))
# Of all ordered pairs: how much more each objective pays for the first, and how often it wins.
PAID = (REWARDS[:, FIRST] - REWARDS[:, SECOND]).T
WINS = jax.nn.sigmoid(PAID)


def trained_policy(loss_of) -> jax.Array:
    """The policy that minimises a loss of the margins z, `[pairs]`, of all ordered pairs."""

    def loss(free):
        log_policy = jax.nn.log_softmax(jnp.append(free, 0.0))
        pairs = (
            PairLogProbs(logs[FIRST], logs[SECOND])
            for logs in (log_policy, jnp.log(REFERENCE_POLICY))
        )
        return loss_of(dpo_margins(*pairs, 0.5))

    def newton(_, free):
        return free - jnp.linalg.solve(jax.hessian(loss)(free), jax.grad(loss)(free))

    free = jax.lax.fori_loop(0, 20, newton, jnp.zeros(2))
    return jax.nn.softmax(jnp.append(free, 0.0))


def dpo_policy(objective: jax.Array) -> jax.Array:
    return trained_policy(lambda z: jnp.mean(WINS[:, objective] * pair_losses(z, 0.5)))


def test_training_recovers_the_optimal_policies():
    """pi proportional to pi_ref exp(weighted rewards / beta)."""
    first, second = jax.vmap(dpo_policy)(jnp.arange(2))
    np.testing.assert_allclose(first, [0.918672, 0.074597, 0.006730], atol=1e-5)
    np.testing.assert_allclose(second, [0.087204, 0.212178, 0.700617], atol=1e-5)
    both = [0.778202, 0.175241, 0.046558]

    def beyond_the_other(z):
        asked = modpo_margins(z, PAID[:, 1:], WEIGHTS[0], WEIGHTS[1:])
        return jnp.mean(WINS[:, 0] * pair_losses(asked, 0.5))

    np.testing.assert_allclose(trained_policy(beyond_the_other), both, atol=1e-5)
    decoded = mix(jnp.log(jnp.stack([first, second])), WEIGHTS, PRODUCT)
    np.testing.assert_allclose(jnp.exp(decoded), both, atol=1e-5)
    averaged = WEIGHTS @ jnp.stack([first, second])  # of probabilities: not the same
    np.testing.assert_allclose(averaged, [0.669232, 0.115872, 0.214897], atol=1e-5)


def test_loss_weighting_mixes_what_the_objectives_find_likely_to_win():
    """Each pair labelled as often as it wins: sigma(z) is the weighted chance, if any policy can.

    Of two responses one always can: chances 0.9 and 0.2, weights 0.6 and 0.4.
    """
    wins, weights = jnp.array([0.9, 0.2]), jnp.array([0.6, 0.4])
    labels = jnp.array([[1, 1], [-1, -1]])

    def loss(z):
        losses = labelled_losses(jnp.stack([z, z]), labels, BETA)
        return jnp.sum(weights * (wins * losses[0] + (1 - wins) * losses[1]))

    z = jnp.log(0.62 / 0.38)
    close(z, 0.489548)
    close(jax.grad(loss)(z), 0.0)
