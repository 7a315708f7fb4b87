"""Beam search: of several responses that are continued beside each other, the best at the end.

As MOD (arXiv 2406.18853) searches: a response is scored by the mixture of its members'
log-probabilities, summed over its tokens, without regard to its length. A response that has ended
keeps its score and its place as long as it is among the best.

All prompts of a call begin and end together. Shapes as in `decoder`, and W beams of each prompt.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import with_logical_constraint as constrain

from paretohqd_jax.models.cache import Cache, begin_rows, empty_cache, extend_rows
from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.logit_mixtures import Mixing, score
from paretohqd_jax.sampling.next_token import mix_members
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.schedule import Pending, Response


class Beams(NamedTuple):
    """The W best responses so far to each of B prompts, the best first."""

    tokens: jax.Array  # int32 [B, W, T]
    num_tokens: jax.Array  # int32 [B, W]
    scores: jax.Array  # float32 [B, W]
    past: jax.Array  # float32 [B, W, M], what each member gives the response
    live: jax.Array  # bool [B, W], whether it goes on


def search_responses(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    answerers: Sequence[Answerer],
    pending: Sequence[Pending],
    key_data: np.ndarray,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    num_slots: int,
) -> Iterator[tuple[list[Response], int]]:
    """What `schedule.respond` does, by beam search; `key_data` is of no use to it.

    Prompts of one padded length are searched `num_slots` at a time, and all adapters lie side by
    side.
    """
    stack = side_by_side(adapters, model.config.dtype)
    for _, group in itertools.groupby(pending, lambda request: request.padded_length):
        requests = list(group)
        for first in range(0, len(requests), num_slots):
            taken = requests[first : first + num_slots]
            padded = taken + taken[-1:] * (num_slots - len(taken))
            tokens = np.zeros((num_slots, taken[0].padded_length), np.int32)
            for row, request in enumerate(padded):
                tokens[row, : len(request.tokens)] = request.tokens
            found, num_tokens = beam_search(
                model, params, stack, [answerers[request.answerer] for request in padded],
                tokens, np.array([len(request.tokens) for request in padded]), eos_token_ids,
                sampling,
            )  # fmt: skip
            rows = zip(taken, found, num_tokens.tolist(), strict=False)
            ended = [
                Response(request.answerer, request.prompt, row[:length].tolist())
                for request, row, length in rows
            ]
            yield ended, int(num_slots * num_tokens.max())


def beam_search(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    answerers: Sequence[Answerer],
    tokens: np.ndarray,
    lengths: np.ndarray,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The best response to each of B prompts.

    Args:
      model, params, eos_token_ids: as for `decoder.fill`.
      adapters: several side by side (`models.lora.side_by_side`).
      answerers: B of one kind, one for each prompt, made of these adapters.
      tokens: int32 [B, P] prompts, padded on the right.
      lengths: int32 [B], their lengths.
      sampling: of which the most tokens and the number of beams count.

    Returns:
      int32 [B, max_new_tokens] and [B]: the new tokens, and how many there are up to and including
      the end-of-sequence token.
    """
    [(_, mixing)] = {answerer.kind for answerer in answerers}
    beams = _search(
        model, params, adapters,
        np.int32([answerer.adapters for answerer in answerers]),
        np.float32([answerer.weights for answerer in answerers]),
        np.asarray(tokens, np.int32), np.asarray(lengths, np.int32),
        np.asarray(eos_token_ids, np.int32), sampling.max_new_tokens, sampling.num_beams, mixing,
    )  # fmt: skip
    return np.asarray(beams.tokens[:, 0]), np.asarray(beams.num_tokens[:, 0])


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "width", "mixing"))
def _search(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    adapter_ids: jax.Array,
    weights: jax.Array,
    tokens: jax.Array,
    lengths: jax.Array,
    eos_token_ids: jax.Array,
    max_new_tokens: int,
    width: int,
    mixing: Mixing,
) -> Beams:
    (num_prompts, num_members), room = weights.shape, tokens.shape[1] + max_new_tokens
    embedding = output_embedding(params, model.config)
    beam_ids = jnp.repeat(adapter_ids, width, axis=0).reshape(-1)  # of [B, W, M] rows

    def log_probs(hidden: jax.Array) -> jax.Array:
        logits = compute_logits(hidden, embedding, model.config.logit_soft_cap)
        logits = constrain(logits, ("batch", "vocab"))
        logits = constrain(logits, ("batch", None))
        shape = (num_prompts, -1, num_members, logits.shape[1])
        return jax.nn.log_softmax(logits).reshape(shape)

    def advance(
        carry: tuple[jax.Array, Cache, Beams],
    ) -> tuple[jax.Array, Cache, Beams]:
        step, cache, beams = carry
        last = jnp.take_along_axis(beams.tokens, beams.num_tokens[..., None] - 1, axis=2)
        hidden, written = model.apply(
            {"params": params, "lora": adapters},
            jnp.repeat(last.reshape(-1, 1), num_members, axis=0), None, cache,
            adapter_ids=beam_ids,
        )  # fmt: skip
        cache = extend_rows(cache, written, jnp.repeat(beams.live.reshape(-1), num_members))
        beams, parents = _best(beams, log_probs(hidden[:, 0]), weights, eos_token_ids, mixing)
        return step + 1, _reordered(cache, parents, num_members), beams

    def goes_on(carry: tuple[jax.Array, Cache, Beams]) -> jax.Array:
        step, _, beams = carry
        # Scores only fall, so none overtakes the best once that has ended.
        return (step < max_new_tokens) & jnp.any(beams.live[:, 0])

    prompts, prompt_lengths = (jnp.repeat(x, num_members, axis=0) for x in (tokens, lengths))
    mask = jnp.arange(tokens.shape[1]) < prompt_lengths[:, None]
    hidden, written = model.apply(
        {"params": params, "lora": adapters}, prompts, mask, adapter_ids=adapter_ids.reshape(-1)
    )
    last = jnp.take_along_axis(hidden, prompt_lengths[:, None, None] - 1, axis=1)[:, 0]
    config = model.config
    shape = (config.num_layers, beam_ids.size, config.num_kv_heads, room, config.head_dim)
    cache = empty_cache(shape, config.dtype)
    rows = jnp.arange(num_prompts)[:, None] * width * num_members + jnp.arange(num_members)
    cache = begin_rows(cache, rows.reshape(-1), written, prompt_lengths)
    beams = _first(num_prompts, width, num_members, max_new_tokens)
    first = jnp.repeat(log_probs(last), width, axis=1)
    beams, parents = _best(beams, first, weights, eos_token_ids, mixing)
    cache = _reordered(cache, parents, num_members)
    _, _, beams = jax.lax.while_loop(goes_on, advance, (jnp.int32(1), cache, beams))
    return jax.tree.map(lambda x: constrain(x, (None,) * x.ndim), beams)


def _first(num_prompts: int, width: int, num_members: int, max_new_tokens: int) -> Beams:
    """Responses without a token, of which only the first of each prompt counts."""
    size = (num_prompts, width)
    return Beams(
        tokens=jnp.zeros((*size, max_new_tokens), jnp.int32),
        num_tokens=jnp.zeros(size, jnp.int32),
        scores=jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf) * jnp.ones(size),
        past=jnp.zeros((*size, num_members)),
        live=jnp.ones(size, bool),
    )


def _best(
    beams: Beams,
    log_probs: jax.Array,
    weights: jax.Array,
    eos_token_ids: jax.Array,
    mixing: Mixing,
) -> tuple[Beams, jax.Array]:
    """The best of all beams with one more token, and of those that have ended.

    Args:
      log_probs: float32 [B, W, M, V], of the next token, by member.
      weights: float32 [B, M].

    Returns:
      The beams, and int32 [B, W], from which beam each of them comes.
    """
    num_prompts, width, num_members, vocab_size = log_probs.shape
    scores = _scores(beams, log_probs, weights, mixing)
    # One that has ended stands in the place of its first token, and nowhere else.
    kept = jnp.where(jnp.arange(vocab_size) == 0, beams.scores[..., None], -jnp.inf)
    scores = jnp.where(beams.live[..., None], scores, kept)
    scores, places = jax.lax.top_k(scores.reshape(num_prompts, -1), width)
    parents, drawn = places // vocab_size, places % vocab_size

    def of_parent(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, parents.reshape(*parents.shape, *[1] * (x.ndim - 2)), axis=1)

    tokens, num_tokens, _, past, live = map(of_parent, beams)
    given = jnp.take_along_axis(of_parent(log_probs), drawn[..., None, None], axis=3)[..., 0]
    at_end = (jnp.arange(tokens.shape[2]) == num_tokens[..., None]) & live[..., None]
    num_tokens = num_tokens + live
    ended = jnp.isin(drawn, eos_token_ids) | (num_tokens == tokens.shape[2])
    return Beams(
        tokens=jnp.where(at_end, drawn[..., None], tokens),
        num_tokens=num_tokens,
        scores=scores,
        past=jnp.where(live[..., None], past + given, past),
        live=live & ~ended,
    ), parents


def _scores(beams: Beams, log_probs: jax.Array, weights: jax.Array, mixing: Mixing) -> jax.Array:
    """The scores [B, W, V] of the beams with each of the tokens that may follow.

    What normalises an exact mixture of whole responses is not known: there the log-probabilities of
    the tokens are summed.
    """
    weights = jnp.broadcast_to(weights[:, None], log_probs.shape[:3])
    if mixing.reads_reference:
        flat = log_probs.reshape(-1, *log_probs.shape[2:])
        mixed = mix_members(flat, weights.reshape(flat.shape[:2]), 0.0, mixing)
        return beams.scores[..., None] + mixed.reshape(*log_probs.shape[:2], -1)
    whole = score(log_probs + beams.past[..., None], weights, mixing)
    return jnp.where(jnp.isneginf(beams.scores)[..., None], -jnp.inf, whole)


def _reordered(cache: Cache, parents: jax.Array, num_members: int) -> Cache:
    """The cache with the rows of each beam's parent in its own; parents are int32 [B, W]."""
    num_prompts, width = parents.shape
    beams = jnp.arange(num_prompts)[:, None] * width + parents
    rows = (beams[..., None] * num_members + jnp.arange(num_members)).reshape(-1)
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), cache)
