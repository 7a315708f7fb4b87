"""Reward models: networks that read a prompt with its response and give one number, the reward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from paretohqd_jax.data import conversations
from paretohqd_jax.data.conversations import is_conversation, messages_of, transcript
from paretohqd_jax.data.special_tokens import (
    control_tokens,
    encode,
    encode_complete,
    literal,
    special_tokens,
)
from paretohqd_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
BOUNDARY = -1  # between the tokens of two texts that are read apart
PLACEHOLDERS = re.compile(r"\{(prompt|response|dialogue)\}")


class Encoded(NamedTuple):
    """Texts as a reward model reads them."""

    tokens: list[list[int]]  # the token ids of each pair, none longer than the model can read
    is_cut: list[bool]  # which pairs were longer


@dataclass(frozen=True)
class RewardModel:
    """What the scoring engine needs of a reward model, wherever it comes from.

    `encode(prompts, responses)` gives the token ids of each pair in the model's own format, special
    tokens included, cut to its context where it was trained to be cut.

    `apply(params, tokens, mask)` of tokens int32 [B, T] and a mask bool [B, T], True on real tokens
    and padded on the right with any id, gives the rewards float32 [B]: the right output, with the
    sign that makes larger better. It is pure and knows nothing of the other rows; the engine jits
    it, unless it is not JAX's (`traced` False), when it takes and gives numpy arrays. It knows
    token ids below `vocab_size`.
    """

    encode: Callable[[Sequence[str], Sequence[str]], Encoded]
    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    vocab_size: int
    traced: bool = True


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    cut: str,
    max_tokens: int,
    prompts: Sequence[str],
    responses: Sequence[str],
) -> Encoded:
    """Token ids of each prompt with its response.

    Args:
      tokenizer: adds the special tokens that it adds to a text, or to a pair of texts.
      texts: one text, or a pair that is tokenized apart, in which {prompt} and {response} stand for
        these, a conversation as its `transcript`, and {dialogue} for the prompt as a `dialogue`;
        HH-RLHF's responses, beside it, are without blanks at their ends. What spells a control
        token in these is text.
      cut: where texts beyond `max_tokens` lose tokens, on the "left", the "right" or in the
        "middle"; of a pair, always the longer text loses one.
      max_tokens: that the model can read, special tokens included.
      prompts, responses: of equal number.
    """
    if any("{dialogue}" in text for text in texts):
        responses = [response.strip() for response in responses]
    if not prompts:
        return Encoded([], [])
    as_text = literal(control_tokens(tokenizer, "".join(texts)))
    columns = [
        [
            _filled(text, prompt, response, as_text)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        for text in texts
    ]
    tokens = encode_complete(tokenizer, columns)
    is_cut = [len(ids) > max_tokens for ids in tokens]
    long = [row for row, cut in enumerate(is_cut) if cut]
    if long:
        long_columns = [[column[row] for row in long] for column in columns]
        shortened = encode_complete(tokenizer, long_columns, max_tokens, cut)
        for row, ids in zip(long, shortened, strict=True):
            tokens[row] = ids
    return Encoded(tokens, is_cut)


def dialogue(prompt: str) -> str:
    """The prompt as HH-RLHF writes dialogues, up to the answer that is still to come.

    A text that is written so already, with or without the last "Assistant:", is taken as it is.
    """
    if is_conversation(prompt):
        return conversations.dialogue(messages_of(prompt))
    if not prompt.lstrip().startswith(HUMAN.strip()):
        return f"{HUMAN} {prompt}"
    return "\n\n" + prompt.strip().removesuffix(ASSISTANT.strip()).strip()


def _filled(text: str, prompt: str, response: str, as_text: Callable[[str], str]) -> str:
    """In one pass, so that braces in the user's texts stand for themselves."""
    values = {"prompt": transcript(prompt), "response": response}
    return PLACEHOLDERS.sub(
        lambda match: as_text(dialogue(prompt) if match[1] == "dialogue" else values[match[1]]),
        text,
    )


def token_types(tokens: jax.Array, mask: jax.Array, separator: int) -> jax.Array:
    """Which text of a pair each token belongs to, bool [B, T]: True after the first separator.

    For encoders whose tokenizers write [CLS] first [SEP] second [SEP]; numpy arrays do as well.
    """
    ends = (tokens == separator) & mask
    return ends.cumsum(axis=1) - ends > 0


def separator_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], cut: str) -> int:
    """The token after which responses begin, for `token_types`: no person's text has it.

    Raises:
      InputError: the texts are no pair whose second one begins with a control token that the first
        has not, or may lose it where they are cut.
    """
    if len(texts) == 2 and cut != "left":
        first, second = encode(tokenizer, texts)
        control = tokenizer.convert_tokens_to_ids(sorted(special_tokens(tokenizer)))
        if second and second[0] in control and second[0] not in first:
            return second[0]
    raise InputError(
        f"config.text.texts={tuple(texts)!r}, cut={cut!r}: where a response begins cannot be told "
        "for config.match; give a pair of texts, the second beginning with a control token that "
        "the first has not, and cut the middle or the right"
    )
