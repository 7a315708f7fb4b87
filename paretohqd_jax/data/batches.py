"""Rows to fixed-shape token arrays, and batches as a pure function of seed and step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paretohqd_jax.data.special_tokens import encode, literal, special_tokens
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MULTIPLE = 16  # of tokens, that the lengths of arrays are


class Examples(NamedTuple):
    """Tokenised rows; leading axes are free (`[num_rows]`, or `[num_adapters, batch]`)."""

    tokens: np.ndarray  # int32 [..., length], padded on the right
    token_mask: np.ndarray  # bool [..., length], True on real tokens
    response_mask: np.ndarray  # bool [..., length], True on response tokens and the final EOS


def token_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    truncated: Sequence[bool] | None = None,
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of formatted prompts and of responses with EOS, encoded apart.

    What a response says is text, also where it spells a special token. One that is `truncated` gets
    no EOS: a model must not learn to stop where a token limit cut it. A response is never encoded
    together with its prompt: merges across the seam would make the trained prefix differ from the
    one generation starts from.
    """
    as_text = literal(special_tokens(tokenizer))
    prompt_ids = encode(tokenizer, prompts)
    response_ids = encode(tokenizer, [as_text(response) for response in responses])
    cut = truncated if truncated is not None else [False] * len(response_ids)
    ends = ([] if is_cut else [tokenizer.eos_token_id] for is_cut in cut)
    return prompt_ids, [ids + end for ids, end in zip(response_ids, ends, strict=True)]


def token_counts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], responses: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the formatted prompts and of the responses (EOS counted), int32 `[num_rows]`."""
    pair = token_ids(tokenizer, prompts, responses)
    return tuple(np.array([len(ids) for ids in side], np.int32) for side in pair)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_length: int,
    truncated: Sequence[bool] | None = None,
    multiple_of: int = MULTIPLE,
    source: str | os.PathLike[str] = "rows",
    row_ids: Sequence[int] | None = None,
) -> Examples:
    """Tokenises formatted prompts and their responses into one array, padded on the right.

    The length is the longest row's, rounded up to `multiple_of` so that few lengths are compiled.
    Messages name rows by `source` and `row_ids`, by default their order.

    Raises:
      InputError: a row is longer than `max_length` tokens, the model's context.
    """
    prompt_ids, response_ids = token_ids(tokenizer, prompts, responses, truncated)
    lengths = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    if max(lengths) > max_length:
        row = int(np.argmax(lengths))
        number = row if row_ids is None else row_ids[row]
        raise InputError(
            f"{source}: row {number}: prompt and response have {lengths[row]} tokens, more than "
            f"the model's context of {max_length}; shorten or remove the row, or lower "
            "config.generate.max_new_tokens if it was generated"
        )
    length = min(rounded_up(max(lengths), multiple_of), max_length)
    tokens = np.zeros((len(lengths), length), np.int32)
    token_mask = np.zeros((len(lengths), length), bool)
    response_mask = np.zeros((len(lengths), length), bool)
    for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        end = len(prompt) + len(response)
        tokens[row, :end] = prompt + response
        token_mask[row, :end] = True
        response_mask[row, len(prompt) : end] = True
    return Examples(tokens, token_mask, response_mask)


def rounded_up(length: int, multiple_of: int = MULTIPLE) -> int:
    """The length of arrays for rows of up to this length: there are few, whatever those of rows."""
    return -(-length // multiple_of) * multiple_of


def one_longer(examples: Examples) -> Examples:
    """The rows with one more token of padding.

    A token is predicted from those before it, so that a model works on all positions but the last:
    on a length that the tiles of an accelerator's matrix products divide, as those of `tokenize`
    are, only if there is one more.
    """
    room = [(0, 0)] * (examples.tokens.ndim - 1) + [(0, 1)]
    return Examples(*(np.pad(array, room) for array in examples))


def batch_rows(seed: int, stream: int, step: int, num_rows: int, batch_size: int) -> np.ndarray:
    """The rows of batch `step`, int64 `[batch_size]`: shuffled epochs laid end to end.

    A pure function of its arguments, so that a resumed run needs to know its step and no more.
    `stream` tells apart the shuffles of different adapters.
    """
    positions = step * batch_size + np.arange(batch_size)
    epochs, offsets = np.divmod(positions, num_rows)
    shuffles = {
        epoch: np.random.default_rng((seed, stream, epoch)).permutation(num_rows)
        for epoch in np.unique(epochs).tolist()
    }
    return np.array([shuffles[e][o] for e, o in zip(epochs.tolist(), offsets, strict=True)])
