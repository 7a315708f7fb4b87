"""How likely a language model finds a response, as a reward."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from paretohqd_jax.data.batches import token_ids
from paretohqd_jax.data.chat import format_prompt, read_prompt_format
from paretohqd_jax.models.llama import Llama, logical_axes, logical_sizes
from paretohqd_jax.models.log_probs import response_log_probs
from paretohqd_jax.models.sharding import check_cuts, shardings_of
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import check_weights, load_config, load_pretrained
from paretohqd_jax.rewards.registry import LanguageModel
from paretohqd_jax.rewards.reward_model import BOUNDARY, Encoded, RewardModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "{prompt}\n"  # the format "chat" of a model without a chat template


@dataclasses.dataclass(frozen=True)
class ResponseLogProb:
    """The log-probability of the tokens after `BOUNDARY`, their mean or sum, as RewardModel.apply.

    Equal to another of the same model, so that a model that is loaded again is not compiled again.
    """

    model: Llama
    mean: bool

    def __call__(self, variables: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        in_prompt = jnp.cumsum(tokens == BOUNDARY, axis=1) == 0

        def without_boundary(array: jax.Array) -> jax.Array:
            return jnp.where(in_prompt, array, jnp.pad(array[:, 1:], [(0, 0), (0, 1)]))

        tokens, mask = without_boundary(tokens), without_boundary(mask)
        counted = mask & ~in_prompt
        total = response_log_probs(self.model, variables, tokens, mask, counted)
        if not self.mean:
            return total
        return total / jnp.maximum(jnp.sum(counted[:, 1:].astype(jnp.float32), axis=1), 1.0)


def with_boundary(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> list[list[int]]:
    """Token ids of each prompt and its response, with `BOUNDARY` between them."""
    return [
        [*prompt, BOUNDARY, *response] for prompt, response in zip(prompts, responses, strict=True)
    ]


def load_likelihood(entry: LanguageModel, dtype: str = "float32") -> RewardModel:
    """The mean log-probability per token of a response, its end token not counted, as a reward.

    Prompt and response are tokenized apart, as in training. The weights lie as the rules in context
    say.

    Raises:
      InputError: the model cannot be read.
    """
    tokenizer = load_tokenizer(entry.checkpoint)
    config = load_config(entry.checkpoint, dtype)
    check_cuts(entry.checkpoint, logical_sizes(config))
    _, params = load_pretrained(
        entry.checkpoint, dtype, shardings=shardings_of(logical_axes(config))
    )
    max_tokens = min(entry.max_tokens, config.max_position_embeddings)
    encode = functools.partial(_encode, tokenizer, _prompt_format(entry, tokenizer), max_tokens)
    apply = ResponseLogProb(Llama(config), mean=True)
    return RewardModel(encode, apply, {"params": params}, config.vocab_size)


def is_dated(entry: LanguageModel) -> bool:
    """Whether the text around prompts names the day; an InputError for a format of no use."""
    tokenizer = load_tokenizer(entry.checkpoint)
    return read_prompt_format(tokenizer, _prompt_format(entry, tokenizer)).is_dated


def _prompt_format(entry: LanguageModel, tokenizer: PreTrainedTokenizerBase) -> str:
    prompt_format = entry.texts[0]
    return PLAIN if prompt_format == "chat" and not tokenizer.chat_template else prompt_format


def check_language_model(entry: LanguageModel) -> None:
    """Raises InputError for a model that cannot be used; reads no weights."""
    load_config(entry.checkpoint)
    check_weights(entry.checkpoint)


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: str,
    max_tokens: int,
    prompts: Sequence[str],
    responses: Sequence[str],
) -> Encoded:
    """The tokens of each formatted prompt and of its response, with `BOUNDARY` between them.

    Of pairs beyond `max_tokens` the last tokens are kept, one of the prompt at least.
    """
    if not prompts:
        return Encoded([], [])
    texts = [format_prompt(tokenizer, prompt, prompt_format) for prompt in prompts]
    without_end = [True] * len(responses)
    cut, is_cut = [], []
    for prompt, response in zip(
        *token_ids(tokenizer, texts, responses, truncated=without_end), strict=True
    ):
        is_cut.append(len(prompt) + len(response) > max_tokens)
        response = response[-(max_tokens - 1) :]
        cut.append((prompt[len(response) - max_tokens :], response))
    return Encoded(with_boundary(*zip(*cut, strict=True)), is_cut)
