"""Numbers are those of a worked example: beta 0.1, two pairs, weights 0.7 and 0.3."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def trained_policy(margins_of) -> jax.Array:
    """The policy of least expected loss over all ordered pairs, labelled by the first reward."""
    first, second = map(jnp.array, zip(*itertools.permutations(range(3), 2), strict=True))
    probability = jax.nn.sigmoid(REWARDS[0, first] - REWARDS[0, second])

    def loss(free):
        log_policy = jax.nn.log_softmax(jnp.append(free, 0.0))
        reference = jnp.log(REFERENCE_POLICY)
        policy_pairs = PairLogProbs(log_policy[first], log_policy[second])
        reference_pairs = PairLogProbs(reference[first], reference[second])
        z = margins_of(dpo_margins(policy_pairs, reference_pairs, 0.5), first, second)
        return jnp.mean(probability * pair_losses(z, 0.5))

    def newton(_, free):
        return free - jnp.linalg.solve(jax.hessian(loss)(free), jax.grad(loss)(free))

    free = jax.lax.fori_loop(0, 20, newton, jnp.zeros(2))
    return jax.nn.softmax(jnp.append(free, 0.0))


def test_training_recovers_the_optimal_policies():
    """pi proportional to pi_ref exp(weighted rewards / beta)."""

    def with_margins(z, first, second):
        other = (REWARDS[1, first] - REWARDS[1, second])[:, None]
        return modpo_margins(z, other, 0.7, jnp.array([0.3]))

    dpo = trained_policy(lambda z, first, second: z)
    np.testing.assert_allclose(dpo, [0.918672, 0.074597, 0.006730], atol=1e-5)
    modpo = trained_policy(with_margins)
    np.testing.assert_allclose(modpo, [0.778202, 0.175241, 0.046558], atol=1e-5)
