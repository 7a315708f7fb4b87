"""Reward models of the registry from their checkpoints, ready for the scoring engine."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from paretohqd_jax.models.classifiers.loading import load_classifier, read_labels
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.rewards.likelihood import check_language_model, load_likelihood
from paretohqd_jax.rewards.registry import Entry, LanguageModel, check_outputs
from paretohqd_jax.rewards.reward_model import (
    BOUNDARY,
    Encoded,
    RewardModel,
    encode_pairs,
    token_types,
)
from paretohqd_jax.rewards.trained import load_trained, open_trained

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of a classifier as a RewardModel's `apply`.

    Equal to another of the same values, so that a model that is loaded again is not compiled again.
    """

    compute: Callable[..., jax.Array]  # params, tokens, mask and perhaps token types -> [B, labels]
    config: Any
    output: int
    sign: int
    separator: int | None  # token after which the second text of a pair comes, of another type

    def __call__(self, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        types = ()
        if self.separator is not None:
            types = (token_types(tokens, mask, self.separator).astype(jnp.int32),)
        logits = self.compute(params, tokens, mask, *types, config=self.config)
        return self.sign * logits[:, self.output]


@dataclasses.dataclass(frozen=True)
class Cosine:
    """The cosine of a sentence encoder's vectors of two texts, as a RewardModel's `apply`."""

    compute: Callable[..., jax.Array]  # params, tokens, mask -> vectors [B, D]
    config: Any
    sign: int

    def __call__(self, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        boundary = tokens == BOUNDARY
        in_first = jnp.cumsum(boundary, axis=1) == 0
        words = jnp.where(boundary, 0, tokens)
        first, second = (
            self.compute(params, words, mask & ~boundary & place, config=self.config)
            for place in (in_first, ~in_first)
        )
        lengths = jnp.linalg.norm(first, axis=1) * jnp.linalg.norm(second, axis=1)
        return self.sign * jnp.sum(first * second, axis=1) / lengths


def load_reward_model(name: str, entry: Entry, dtype: str = "float32") -> RewardModel:
    """The reward model of an entry, its params on the devices.

    Raises:
      InputError: the checkpoint cannot be used, or is not the one that the entry describes.
    """
    logger.info("loading reward model %s from %s", name, entry.checkpoint)
    if entry.adapter:
        return load_trained(entry, dtype)
    if isinstance(entry, LanguageModel):
        return load_likelihood(entry, dtype)
    check_reward_model(name, entry)
    tokenizer = load_tokenizer(entry.checkpoint)
    classifier = load_classifier(entry.checkpoint, dtype)
    compute, config = classifier.apply.func, classifier.apply.keywords["config"]
    max_tokens = min(entry.max_tokens, classifier.max_tokens)
    if not classifier.labels:
        encode = functools.partial(_encode_apart, tokenizer, entry, max_tokens)
        apply = Cosine(compute, config, entry.sign)
        return RewardModel(encode, apply, classifier.params, classifier.vocab_size)
    has_types = len(entry.texts) == 2 and getattr(config, "num_token_types", 0) > 1
    separator = tokenizer.sep_token_id if has_types else None
    apply = Output(compute, config, entry.output, entry.sign, separator)
    encode = functools.partial(encode_pairs, tokenizer, entry.texts, entry.cut, max_tokens)
    return RewardModel(encode, apply, classifier.params, classifier.vocab_size)


def check_reward_model(name: str, entry: Entry) -> None:
    """Checks the configuration of the checkpoint, before any work.

    Raises:
      InputError: it cannot be used, or is not the one that the entry describes.
    """
    if entry.adapter:
        open_trained(entry)
    elif isinstance(entry, LanguageModel):
        check_language_model(entry)
    else:
        check_outputs(name, entry, read_labels(entry.checkpoint))


def _encode_apart(
    tokenizer: Any, entry: Entry, max_tokens: int, prompts: Sequence[str], responses: Sequence[str]
) -> Encoded:
    """The tokens of both texts of a pair, each by itself, with `BOUNDARY` between them."""
    halves = [
        encode_pairs(tokenizer, (text,), entry.cut, max_tokens, prompts, responses)
        for text in entry.texts
    ]
    rows = zip(*(half.tokens for half in halves), strict=True)
    tokens = [[*first, BOUNDARY, *second] for first, second in rows]
    return Encoded(tokens, list(map(any, zip(*(half.is_cut for half in halves), strict=True))))
