from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax.models.match import (
    PROMPT,
    RESPONSE,
    init_match,
    mismatch,
    similarity,
    words_of,
)

EMBEDDING = jax.random.normal(jax.random.key(0), (20, 8))
MATCH = init_match(jax.random.key(1), 8, 3) | {
    "weights": jax.random.normal(jax.random.key(2), (8, 2)) * 0.3,
    "mean": 0.5, "deviation": 0.1, "penalty": 10.0,
    "word_pairs": jnp.array([[7, 8, 4]]),
}  # fmt: skip


def similarity_by_hand(prompt, response):
    def look(tokens, side):
        x = np.array(EMBEDDING)[tokens]
        x *= np.sqrt(8) / np.linalg.norm(x, axis=1, keepdims=True)
        vectors = x @ MATCH["projection"]
        weights = np.exp(x @ MATCH["weights"][:, side])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), weights / weights.sum()

    (p, of_p), (r, of_r) = look(prompt, PROMPT), look(response, RESPONSE)
    cosines = p @ r.T
    return of_p @ cosines.max(axis=1) + of_r @ cosines.max(axis=0)


def test_similarity_is_of_the_words_most_alike_on_both_sides_whatever_the_padding():
    prompt, response = [3, 1, 4], [1, 5, 9, 2, 6]
    tokens = jnp.array([prompt + response + [0, 0]])
    mask = jnp.arange(10) < 8
    sides = (
        words_of(MATCH, EMBEDDING, tokens, mask & (jnp.arange(10) < 3), PROMPT),
        words_of(MATCH, EMBEDDING, tokens, mask & (jnp.arange(10) >= 3), RESPONSE),
    )
    due = similarity_by_hand(prompt, response)
    np.testing.assert_allclose(similarity(*sides), [due], rtol=1e-5)
    is_response = (jnp.arange(10) >= 3)[None]
    lost = mismatch(MATCH, EMBEDDING, tokens, mask[None], is_response)
    np.testing.assert_allclose(lost, [10 / (1 + np.exp(2 * (due - 0.5) / 0.1 - 2))], rtol=1e-4)


def test_repeating_the_prompt_gains_no_more_than_being_to_the_point():
    tokens = jnp.array([[3, 1, 4, 3, 1, 4]])
    is_response = (jnp.arange(6) >= 3)[None]
    lost = mismatch(MATCH, EMBEDDING, tokens, tokens > 0, is_response)
    assert 0 <= lost[0] < 1e-6, "the most alike that there is, and yet nothing is added"


def test_a_word_of_two_tokens_is_the_same_as_of_one():
    whole, split = jnp.array([[3, 1, 4, 5, 4, 0]]), jnp.array([[3, 1, 4, 5, 7, 8]])
    is_response = (jnp.arange(6) >= 3)[None]
    lost = [
        mismatch(MATCH, EMBEDDING, tokens, tokens > 0, is_response) for tokens in (whole, split)
    ]
    np.testing.assert_allclose(*lost, rtol=1e-5)


def test_a_response_of_no_words_is_a_mismatch():
    tokens = jnp.array([[3, 1, 4]])
    lost = mismatch(MATCH, EMBEDDING, tokens, tokens > 0, tokens < 0)
    np.testing.assert_allclose(lost, 10.0, rtol=1e-5)
