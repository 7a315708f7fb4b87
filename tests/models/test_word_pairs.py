from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.word_pairs import in_key_order, join_pairs, word_pairs


@pytest.fixture(scope="module")
def tokenizer():
    """Knows " soil" as one token, and "oil"."""
    merges = [("o", "i"), ("oi", "l"), ("Ġ", "s"), ("Ġs", "oil")]
    names = [*"Ġ?soilS", *("".join(merge) for merge in merges)]
    backend = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("text", ["Soil?", "soil?", " soil?"])
def test_a_word_is_one_token_wherever_it_stands(tokenizer, text):
    tokens = jnp.array([tokenizer(text).input_ids])
    joined, mask = join_pairs(word_pairs(tokenizer), tokens, tokens >= 0)
    assert tokenizer.convert_ids_to_tokens(joined[mask].tolist()) == ["Ġsoil", "?"]


def test_of_overlapping_pairs_the_first_is_joined_and_padding_is_none():
    pairs = in_key_order(np.array([[1, 2, 9], [2, 3, 8]]))
    tokens = jnp.array([[1, 2, 3, 2, 3], [4, 2, 3, 1, 2]])
    mask = jnp.array([[True] * 5, [True, True, True, True, False]])
    joined, kept = join_pairs(pairs, tokens, mask)
    np.testing.assert_array_equal(joined[0][kept[0]], [9, 3, 8])
    np.testing.assert_array_equal(joined[1][kept[1]], [4, 8, 1])


def test_a_tokenizer_without_such_words_has_a_table_that_nothing_is_in():
    pairs = word_pairs(load_tokenizer("random:toy"))
    tokens = jnp.arange(6)[None]
    joined, mask = join_pairs(pairs, tokens, tokens < 5)
    np.testing.assert_array_equal(joined, tokens)
    np.testing.assert_array_equal(mask, tokens < 5)
