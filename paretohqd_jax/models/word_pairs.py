"""Words that are one token within a sentence and two at its beginning.

A tokenizer that writes a blank with the word after it has " compost" as one token, and "Compost",
with which an answer may begin, as "Com" and "post". To whoever compares tokens these are different
words; `join_pairs` makes them one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANKS = ("Ġ", "▁")  # as byte-level tokenizers and SentencePiece write them before a word
FACTOR = 0x9E3779B1  # odd, so that keys of different pairs seldom agree modulo 2^32


def word_pairs(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Two tokens and the one that they stand for, int32 [P, 3], for `join_pairs`.

    Of every word of lower-case ASCII letters that is a token with the blank before it: how it is
    written without the blank, capitalised, and both, where that takes two tokens. Never empty: a
    row of no tokens is among them.
    """
    tokens = {
        name[1:]: token for name, token in tokenizer.get_vocab().items() if name.startswith(BLANKS)
    }
    words = [
        word for word in sorted(tokens) if word.isascii() and word.isalpha() and word.islower()
    ]
    rows = [[-1, -1, -1]]
    for written in ("{0}", "{1}", " {1}"):
        texts = [written.format(word, word.capitalize()) for word in words]
        ids = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
        rows += [[*pair, tokens[w]] for w, pair in zip(words, ids, strict=True) if len(pair) == 2]
    return in_key_order(np.array(rows, np.int32))


def in_key_order(pairs: np.ndarray) -> np.ndarray:
    """Pairs int32 [P, 3] as `join_pairs` looks them up, one of each key."""
    _, order = np.unique(_keys(pairs[:, 0], pairs[:, 1]), return_index=True)
    return pairs[order]


def join_pairs(pairs: jax.Array, tokens: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens int32 [..., T] and their mask bool [..., T], a word in place of each of `word_pairs`.

    It stands where the first token was; the mask leaves out the second. Of pairs that overlap the
    first is joined.
    """
    following = jnp.roll(tokens, -1, axis=-1)
    rows = jnp.searchsorted(_keys(pairs[:, 0], pairs[:, 1]), _keys(tokens, following))
    found = pairs[jnp.minimum(rows, len(pairs) - 1)]
    is_pair = (found[..., 0] == tokens) & (found[..., 1] == following)
    is_pair &= mask & jnp.roll(mask, -1, axis=-1).at[..., -1].set(False)
    is_pair &= ~_shifted(is_pair)
    return jnp.where(is_pair, found[..., 2], tokens), mask & ~_shifted(is_pair)


def _keys(first: jax.Array | np.ndarray, second: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    return first.astype(np.uint32) * np.uint32(FACTOR) + second.astype(np.uint32)


def _shifted(flags: jax.Array) -> jax.Array:
    return jnp.roll(flags, 1, axis=-1).at[..., 0].set(False)
