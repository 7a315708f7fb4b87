"""Distributions of the samplers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.sampling.sampler import SamplingConfig, sample

NUM_DRAWS = 20_000


def reference_probabilities(logits, temperature, top_k, top_p):
    """Temperature, top-k, top-p as usually written: by sorting (float64 numpy)."""
    scaled = np.asarray(logits, np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    probabilities = np.exp(scaled - scaled.max())
    if top_k:
        probabilities[order[top_k:]] = 0
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("vocabulary", [7, 700])  # one block of the two-level draw, and several
@pytest.mark.parametrize(
    "temperature, top_k, top_p",
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.7, 0, 0.8), (1.0, 4, 1.0), (0.8, 5, 0.6), (1.0, 1, 1.0)],
)
def test_frequencies_match_the_reference(vocabulary, temperature, top_k, top_p):
    logits = jnp.asarray(3 * np.random.default_rng(0).normal(size=vocabulary), jnp.float32)
    expected = reference_probabilities(logits, temperature, top_k, top_p)
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    draw = jax.jit(sample, static_argnames="top_k")
    tokens = draw(jnp.tile(logits, (NUM_DRAWS, 1)), keys, temperature, top_p, top_k)
    counts = np.bincount(tokens, minlength=vocabulary)
    assert not counts[expected == 0].any()
    # Five standard deviations, and at least a handful where next to nothing is expected.
    spread = np.sqrt(NUM_DRAWS * expected * (1 - expected))
    assert np.all(np.abs(counts - NUM_DRAWS * expected) <= 5 * spread + 5)


def test_greedy_takes_the_first_of_the_likeliest():
    logits = jnp.array([[0.0, 3.0, 3.0, 1.0], [5.0, -1.0, 2.0, 4.9]])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(sample(logits, keys, jnp.float32(0), jnp.float32(0.5)), [1, 0])


def test_tiny_nucleus_is_the_likeliest_token():
    logits = jax.random.normal(jax.random.key(1), (50, 300))
    keys = jax.random.split(jax.random.key(0), 50)
    tokens = sample(logits, keys, jnp.float32(0.3), jnp.float32(1e-6))
    np.testing.assert_array_equal(tokens, logits.argmax(-1))


def test_impossible_tokens_are_never_drawn():
    logits = jnp.full((2000, 600), -jnp.inf).at[:, 599].set(0.0).at[:, 3].set(0.0)
    keys = jax.random.split(jax.random.key(0), 2000)
    tokens = np.asarray(sample(logits, keys, jnp.float32(1), jnp.float32(1)))
    assert set(tokens) == {3, 599}
    assert 850 < (tokens == 3).sum() < 1150


def test_nan_does_not_hang():
    logits = jnp.zeros((3, 300)).at[1].set(jnp.nan)
    keys = jax.random.split(jax.random.key(0), 3)
    tokens = sample(logits, keys, jnp.float32(1), jnp.float32(0.9))
    assert tokens[1] == 0 and jnp.all(tokens < 300)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1e-50}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5: it must be a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens is None: it must be a whole number"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2}, "num_beams is 2: it must be 1, or more with temperature 0"),
        ({"top_k": 1.5}, "top_k is 1.5: it must be a whole number"),
        ({"temperature": "warm"}, "temperature is 'warm': it must be a number"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(InputError, match=word):
        SamplingConfig(**{"max_new_tokens": 4, **options})
