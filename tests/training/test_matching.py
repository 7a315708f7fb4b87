from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.training.matching import Texts, all_similarities, learn_match, matching_loss

NUM_TOPICS, WORDS = 12, 6
LEARNING = {
    "rank": 8, "penalty": 3.0, "num_steps": 60, "batch_size": 6, "learning_rate": 0.01, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def conversations():
    """Prompts and responses of words of their topic, among words that all have."""
    random = np.random.default_rng(0)
    embedding = random.normal(size=(NUM_TOPICS * WORDS + 20, 16)).astype(np.float32)
    embedding[: NUM_TOPICS * WORDS] += np.repeat(3 * random.normal(size=(NUM_TOPICS, 16)), WORDS, 0)

    def text(topic):
        own = topic * WORDS + random.integers(WORDS, size=3)
        return [*own, *random.integers(NUM_TOPICS * WORDS, len(embedding), size=4)]

    topics = np.arange(NUM_TOPICS).repeat(4)
    sides = [np.array([text(topic) for topic in topics], np.int32) for _ in range(2)]
    texts = [Texts(tokens, np.ones(tokens.shape, bool)) for tokens in sides]
    rows = [np.flatnonzero(topics == topic) for topic in range(NUM_TOPICS)]
    return embedding, texts, rows


def test_the_loss_is_that_of_telling_every_pair_by_itself():
    similarities = jnp.array([[1.5, 0.5], [1.0, 0.8]])
    logits = 2 * (np.array(similarities) - 1)
    due = np.log1p(np.exp(-logits * np.array([[1, -1], [-1, 1]]))).sum() / 2
    loss = matching_loss(similarities, jnp.log(2.0), jnp.asarray(1.0))
    np.testing.assert_allclose(loss, due, rtol=1e-6)


def test_it_learns_which_words_tell_topics_apart(conversations):
    embedding, texts, rows = conversations
    match = learn_match(embedding, *texts, rows, **LEARNING)
    found = np.asarray(all_similarities(match, embedding, *texts))
    same = np.kron(np.eye(NUM_TOPICS, dtype=bool), np.ones((4, 4), bool))
    z = (found - match["mean"]) / match["deviation"]
    assert abs(z[~same].mean()) < 0.5 and 0.5 < z[~same].std() < 1.5
    assert np.median(z[same]) > 2.0 and match["penalty"] == 3.0
    again = learn_match(embedding, *texts, rows, **LEARNING)
    jax.tree.map(np.testing.assert_array_equal, match, again)
