from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.data.batches import batch_rows, one_longer, token_counts, tokenize
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("random:toy")


def test_only_the_response_and_its_end_are_trained(tokenizer):
    prompts, responses = ["ask: ", "a longer question: "], [" two", "ä\n"]
    examples = tokenize(tokenizer, prompts, responses, max_length=64)
    assert examples.tokens.shape == (2, 32)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        trained = examples.tokens[row][examples.response_mask[row]].tolist()
        assert trained[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(trained[:-1]) == response
        untrained = examples.token_mask[row] & ~examples.response_mask[row]
        assert tokenizer.decode(examples.tokens[row][untrained]) == prompt


def test_a_response_cut_at_its_token_limit_is_not_taught_to_end_there(tokenizer):
    examples = tokenize(tokenizer, ["a", "a"], ["bc", "bc"], 16, truncated=[True, False])
    assert examples.tokens[:, 3].tolist() == [0, tokenizer.eos_token_id]
    assert examples.response_mask.sum(axis=1).tolist() == [2, 3]


def test_lengths_are_rounded_up_but_never_beyond_the_limit(tokenizer):
    assert tokenize(tokenizer, ["abc"], ["de"], max_length=100).tokens.shape == (1, 16)
    assert tokenize(tokenizer, ["abc"], ["de"], max_length=7).tokens.shape == (1, 7)
    message = "rows: row 1: .* 7 tokens, more than the model's context of 6; shorten"
    with pytest.raises(InputError, match=message):
        tokenize(tokenizer, ["a", "abcd"], ["b", "ef"], max_length=6)


def test_one_more_token_is_padding(tokenizer):
    examples = tokenize(tokenizer, ["abc"], ["de"], max_length=100)
    longer = one_longer(examples)
    for array, before in zip(longer, examples, strict=True):
        assert array.shape == (1, 17) and not array[:, 16].any()
        np.testing.assert_array_equal(array[:, :16], before)


def test_token_counts_include_the_end(tokenizer):
    prompt_counts, response_counts = token_counts(tokenizer, ["abc", ""], ["de", "f"])
    assert prompt_counts.tolist() == [3, 0] and response_counts.tolist() == [3, 2]


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 4), (3, 8), (5, 5)])
def test_epochs_are_shuffles_laid_end_to_end(num_rows, batch_size):
    steps = 3 * num_rows
    drawn = np.concatenate([batch_rows(7, 1, s, num_rows, batch_size) for s in range(steps)])
    epochs = drawn[: len(drawn) // num_rows * num_rows].reshape(-1, num_rows)
    assert (np.sort(epochs, axis=1) == np.arange(num_rows)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_a_batch_depends_on_seed_stream_and_step_alone():
    same = [batch_rows(0, 0, 5, 100, 8) for _ in range(2)]
    assert (same[0] == same[1]).all()
    for other in (batch_rows(1, 0, 5, 100, 8), batch_rows(0, 1, 5, 100, 8)):
        assert (same[0] != other).any()
