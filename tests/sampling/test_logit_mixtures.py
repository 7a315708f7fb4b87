"""Mixtures of next-token distributions against worked examples and what must hold of any."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretohqd_jax.sampling.logit_mixtures import Mixing, mix, score

RULES = [
    Mixing(divergence, legacy)
    for divergence in ("reverse_kl", "forward_kl", "alpha=0.5", "jsd")
    for legacy in (False, True)
]
mixed = jax.jit(mix, static_argnums=2)
LOGITS = np.array([[2, 1, 0, -1], [-1, 0, 1.5, 2]], np.float32)
REFERENCE = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
WEIGHTS = np.array([0.3, 0.7], np.float32)


def log_softmax(logits):
    return np.asarray(jax.nn.log_softmax(logits))


@pytest.mark.parametrize(
    ("divergence", "legacy_score", "expected"),
    [
        ("reverse_kl", False, [0.111481, 0.166310, 0.352079, 0.370130]),
        ("reverse_kl", True, [0.111481, 0.166310, 0.352079, 0.370130]),
        ("forward_kl", True, [0.095153, 0.231763, 0.443036, 0.230048]),
        ("alpha=0.5", True, [0.096155, 0.200954, 0.408260, 0.294631]),
        ("jsd", True, [0.111481, 0.166310, 0.352079, 0.370130]),
        ("forward_kl", False, [0.041953, 0.123351, 0.534613, 0.300084]),
        ("jsd", False, [0.082096, 0.154366, 0.413932, 0.349606]),
    ],
)
def test_worked_examples(divergence, legacy_score, expected):
    found = mixed(log_softmax(LOGITS), WEIGHTS, Mixing(divergence, legacy_score), REFERENCE)
    np.testing.assert_allclose(np.exp(found), expected, atol=2e-6)


def test_the_reference_has_what_the_weights_leave_over():
    reference = log_softmax(np.array([0.5, 0.5, 0, 0], np.float32))
    found = mixed(log_softmax(LOGITS), np.array([1.5, 0.8], np.float32), Mixing(), reference)
    np.testing.assert_allclose(np.exp(found), [0.410535, 0.203866, 0.289299, 0.096299], atol=2e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_the_exact_mixture_has_its_root(alpha):
    """(sum_i w_i policy_i^-alpha - policy^-alpha) / reference^-alpha is one number."""
    rule = Mixing("forward_kl" if alpha == 1 else f"alpha={alpha}")
    found = np.float64(mixed(log_softmax(LOGITS), WEIGHTS, rule, REFERENCE))
    average = WEIGHTS @ np.exp(-alpha * np.float64(log_softmax(LOGITS)))
    constants = (average - np.exp(-alpha * found)) * np.exp(alpha * REFERENCE)
    np.testing.assert_allclose(constants, constants[0], rtol=1e-4)
    if alpha == 1:
        assert constants[0] == pytest.approx(0.727962, abs=1e-5)


def test_the_exact_jsd_has_its_root():
    found = np.float64(mixed(log_softmax(LOGITS), WEIGHTS, Mixing("jsd"), REFERENCE))
    ratios = np.exp(np.vstack([found, log_softmax(LOGITS)]) - REFERENCE)
    logs = np.log(ratios / (1 + ratios))
    np.testing.assert_allclose(logs[0] - WEIGHTS @ logs[1:], 0.288504, atol=1e-5)


rows = st.lists(st.floats(-30, 30, width=32), min_size=12, max_size=12)
several = pytest.mark.parametrize("mixing", RULES, ids=str)


@several
@settings(max_examples=25)
@given(rows=rows, share=st.floats(0, 1, width=32))
def test_what_holds_of_any_mixture(mixing, rows, share):
    """It is a distribution; one-hot weights give the member, equal members give themselves."""
    first, second, reference = log_softmax(np.float32(rows).reshape(3, 4))
    weights = np.float32([share, 1 - share])
    members = np.stack([first, second])
    between = mixed(members, weights, mixing, reference)
    assert np.exp(between).sum() == pytest.approx(1, abs=1e-5)
    swapped = mixed(members[::-1], weights[::-1], mixing, reference)
    np.testing.assert_allclose(np.exp(between), np.exp(swapped), atol=1e-4)
    one = mixed(members, np.float32([0, 1]), mixing, reference)
    np.testing.assert_allclose(np.exp(one), np.exp(second), atol=1e-4)
    same = mixed(np.stack([first, first]), weights, mixing, reference)
    np.testing.assert_allclose(np.exp(same), np.exp(first), atol=1e-4)


@several
def test_mixtures_are_continuous_in_the_weights(mixing):
    shares = np.linspace(0, 1, 201, dtype=np.float32)
    weights = np.stack([shares, 1 - shares], axis=1)
    members = np.tile(log_softmax(LOGITS), (201, 1, 1))
    found = np.exp(mixed(members, weights, mixing, np.tile(REFERENCE, (201, 1))))
    assert np.abs(np.diff(found, axis=0)).max() < 0.03
    np.testing.assert_allclose(found[[-1, 0]], np.exp(log_softmax(LOGITS)), atol=1e-5)


def test_mixtures_are_what_the_rewards_ask_for():
    """Policies that are reference times exp(r_i / beta) mix to that of the weighted reward."""
    random = np.random.default_rng(0)
    rewards, weights = random.normal(size=(3, 5)), np.float32([0.2, 0.5, 0.3])
    reference = log_softmax(random.normal(size=5))
    members = log_softmax(np.float32(reference + rewards / 0.7))
    found = mixed(members, weights, Mixing())
    expected = log_softmax(np.float32(reference + weights @ rewards / 0.7))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_legacy_scores_read_the_whole_response():
    """What makes a response likely for one member alone makes that member count for less."""
    members, past = log_softmax(LOGITS), np.float32([-1, -6])
    found = mixed(members, WEIGHTS, Mixing("forward_kl", True), REFERENCE, past)
    whole = score(jnp.asarray(members + past[:, None]), WEIGHTS, Mixing("forward_kl", True))
    np.testing.assert_allclose(found, log_softmax(whole), atol=1e-5)
    assert np.argmax(found) == 3  # the second member's, to which the response is less likely
    product = mixed(members, WEIGHTS, Mixing(), REFERENCE, past)
    np.testing.assert_allclose(product, mixed(members, WEIGHTS, Mixing()), atol=1e-6)
