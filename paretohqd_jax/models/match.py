"""Whether a response answers its prompt or another one, told from the words of both.

Late interaction (Khattab & Zaharia, arXiv 2004.12832) of token embeddings, in both directions: the
words of the prompt look for their like in the response, those of the response in the prompt. It is
learned from which response belongs to which prompt (`training.matching`) and needs no pass through
a network. A reward loses a penalty times the probability that a response answers another prompt:
beyond answering its own there is nothing to gain, least of all by repeating the prompt.

Its parameters are float32: `projection` [D, r]; `weights` [D, 2], which tell how much a word of a
prompt or of a response counts; and as numbers `mean` and `deviation` of the similarity of prompts
to responses of others, and `penalty`. What is loaded for scoring has the tokenizer's `word_pairs`
beside them, int32 [P, 3].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paretohqd_jax.models.word_pairs import join_pairs

PROMPT, RESPONSE = 0, 1


class Words(NamedTuple):
    """The tokens of prompts or of responses; leading axes are free."""

    vectors: jax.Array  # float32 [..., T, r], of length 1
    weights: jax.Array  # float32 [..., T], which add up to 1
    mask: jax.Array  # bool [..., T], True on tokens of this side


def init_match(key: jax.Array, hidden_size: int, rank: int) -> dict[str, jax.Array]:
    """A random projection, which keeps similarities in the mean, and equal weights."""
    return {
        "projection": jax.random.normal(key, (hidden_size, rank)) / jnp.sqrt(hidden_size),
        "weights": jnp.zeros((hidden_size, 2)),
    }


def match_shapes(match: dict[str, Any], hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters, of the rank of those given."""
    rank = match["projection"].shape[-1] if "projection" in match else 0
    numbers = dict.fromkeys(("mean", "deviation", "penalty"), ())
    return {"projection": (hidden_size, rank), "weights": (hidden_size, 2)} | numbers


def words_of(
    match: dict[str, Any], embedding: jax.Array, tokens: jax.Array, mask: jax.Array, side: int
) -> Words:
    """What is compared of tokens int32 [..., T] with the mask of a side, PROMPT or RESPONSE.

    `embedding` [V, D] is the base model's.
    """
    x = _of_length_one(embedding[tokens].astype(jnp.float32)) * embedding.shape[1] ** 0.5
    weights = jnp.where(mask, x @ match["weights"][:, side], -1e9)
    return Words(_of_length_one(x @ match["projection"]), jax.nn.softmax(weights), mask)


def similarity(prompt: Words, response: Words) -> jax.Array:
    """Of prompts and responses, in [-2, 2]; the leading axes broadcast.

    The sum over both sides of the weighted mean, over its words, of the cosine to the word of the
    other side that is most alike.
    """
    cosines = jnp.einsum("...tr,...sr->...ts", prompt.vectors, response.vectors)
    of_prompt = jnp.max(jnp.where(response.mask[..., None, :], cosines, -1.0), axis=-1)
    of_response = jnp.max(jnp.where(prompt.mask[..., :, None], cosines, -1.0), axis=-2)
    means = jnp.sum(prompt.weights * of_prompt, axis=-1)
    return means + jnp.sum(response.weights * of_response, axis=-1)


def mismatch(
    match: dict[str, Any],
    embedding: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    is_response: jax.Array,
) -> jax.Array:
    """What each text's reward loses, float32 [B]: the penalty times sigmoid(2 - 2 z).

    z is the similarity of prompt and response in standard deviations above the mean of prompts and
    responses of others: 88 % of the penalty at the mean, half of it at 1, next to nothing from 4.

    Of tokens int32 [B, T]; mask and `is_response` bool [B, T], True on real tokens and from where
    the response begins.
    """
    tokens, mask = join_pairs(match["word_pairs"], tokens, mask)
    prompt = words_of(match, embedding, tokens, mask & ~is_response, PROMPT)
    response = words_of(match, embedding, tokens, mask & is_response, RESPONSE)
    z = (similarity(prompt, response) - match["mean"]) / match["deviation"]
    return match["penalty"] * jax.nn.sigmoid(2.0 - 2.0 * z)


def _of_length_one(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
