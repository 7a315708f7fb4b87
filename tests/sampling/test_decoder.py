"""Decoding against recomputation without a cache, and what a row must not depend on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.models.llama import (
    Llama,
    LlamaConfig,
    compute_logits,
    init_params,
    output_embedding,
)
from paretohqd_jax.models.lora import LoraConfig, init_adapters, side_by_side
from paretohqd_jax.sampling import decoder
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.beam_search import beam_search
from paretohqd_jax.sampling.decoder import decode
from paretohqd_jax.sampling.logit_mixtures import Mixing, mix, score
from paretohqd_jax.sampling.sampler import SamplingConfig

CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_position_embeddings=64,
)
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj"))
MODEL = Llama(CONFIG, LORA)
mixed, scored = jax.jit(mix, static_argnums=2), jax.jit(score, static_argnums=2)


@pytest.fixture(scope="module")
def params():
    params = init_params(jax.random.key(0), CONFIG)
    return jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim > 1 else leaf, params)


@pytest.fixture(scope="module")
def adapters():
    adapters = init_adapters(jax.random.key(1), CONFIG, LORA, 3)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.sin(jnp.arange(leaf.size).reshape(leaf.shape)), adapters
    )


@pytest.fixture(scope="module")
def prompts():
    tokens = jax.random.randint(jax.random.key(2), (4, 10), 0, CONFIG.vocab_size)
    lengths = np.array([10, 7, 4, 1])
    return np.where(np.arange(10) < lengths[:, None], tokens, 7), lengths


@pytest.fixture(scope="module")
def log_probs(params, adapters):
    """Of the next token after a text, by adapter, without a cache."""

    @jax.jit
    def of_one(adapter, tokens, mask):
        one = jax.tree.map(lambda leaf: leaf[adapter], adapters)
        hidden, _ = MODEL.apply({"params": params, "lora": one}, tokens, mask)
        return jax.nn.log_softmax(compute_logits(hidden, output_embedding(params, CONFIG)))[0]

    def of_each(numbers, text):
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(text)] = text
        mask = np.arange(16)[None] < len(text)
        return np.stack([of_one(number, padded, mask)[len(text) - 1] for number in numbers])

    return of_each


def row_keys(num_adapters, rows):
    fold_in = jax.random.fold_in
    outer = jax.vmap(fold_in, (None, 0))(jax.random.key(5), jnp.arange(num_adapters))
    return jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(outer, jnp.asarray(rows))


@pytest.mark.parametrize("window", [None, 4])
def test_greedy_decoding_equals_recomputation_without_a_cache(params, adapters, prompts, window):
    model = Llama(dataclasses.replace(CONFIG, sliding_window=window), LORA)
    tokens, lengths = prompts
    steps = 6
    new_tokens, num_tokens = decode(
        model, params, adapters, tokens, lengths, row_keys(3, range(4)), (-1,),
        SamplingConfig(steps, 0.0),
    )  # fmt: skip
    assert np.all(num_tokens == steps) and new_tokens.shape == (3, 4, steps)

    @jax.jit
    def next_tokens(adapter, tokens, mask):
        hidden, _ = model.apply({"params": params, "lora": adapter}, tokens, mask)
        return compute_logits(hidden, output_embedding(params, CONFIG)).argmax(-1)

    for i in range(3):
        adapter = jax.tree.map(lambda leaf, i=i: leaf[i], adapters)
        for row, length in enumerate(lengths):
            text = np.zeros((1, 10 + steps), np.int32)
            text[0, :length] = tokens[row, :length]
            for step in range(steps):
                now = length + step
                chosen = next_tokens(adapter, text, np.arange(text.size)[None] < now)[0, now - 1]
                assert new_tokens[i, row, step] == chosen
                text[0, now] = chosen
    assert len({tuple(row) for row in new_tokens.reshape(-1, steps).tolist()}) > 3


SAMPLING = SamplingConfig(8, temperature=1.0, top_p=0.95)


@pytest.fixture(scope="module")
def together(params, adapters, prompts):
    return decode(MODEL, params, adapters, *prompts, row_keys(3, range(4)), (5, 6), SAMPLING)


def test_mixtures_with_nothing_to_mix_say_what_the_adapter_says(
    params, adapters, prompts, together
):
    """All the weight on one member, or twice the same, in the program of two members."""
    answerers = [
        Answerer(members, weights)
        for members, weights in [((0, 1), (1.0, 0.0)), ((1, 1), (0.3, 0.7)), ((0, 2), (0.0, 1.0))]
    ]
    found = decode(
        MODEL, params, adapters, *prompts, row_keys(3, range(4)), (5, 6), SAMPLING, answerers
    )
    for ours, theirs in zip(found, together, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "mixing", [Mixing(), Mixing("forward_kl"), Mixing("alpha=0.5", legacy_score=True)], ids=str
)
def test_mixtures_equal_recomputation_without_a_cache(params, adapters, prompts, log_probs, mixing):
    """Two of different weights beside each other, every member reading the one token drawn."""
    tokens, lengths = (each[1:3] for each in prompts)
    steps, num_members = 6, 3 if mixing.reads_reference else 2
    weights = np.float32([[0.3, 0.7, 0], [0.8, 0.2, 0]])[:, :num_members]
    members = ((0, 1, 2)[:num_members], (2, 0, 1)[:num_members])
    answerers = [Answerer(*both, mixing) for both in zip(members, weights.tolist(), strict=True)]
    found, _ = decode(
        MODEL, params, adapters, tokens, lengths, row_keys(2, range(2)), (-1,),
        SamplingConfig(steps, 0.0), answerers,
    )  # fmt: skip

    for number, each in enumerate(answerers):
        for row, length in enumerate(lengths):
            text, past = tokens[row, :length].tolist(), np.zeros(2, np.float32)
            for token in found[number, row]:
                given = log_probs(each.adapters, text)
                expected = mixed(given[:2], weights[number, :2], mixing, given[-1], past)
                assert token == np.argmax(expected)
                past += given[:2, token]
                text.append(token)
    assert len({tuple(row) for row in found.reshape(-1, steps).tolist()}) == 4


def search(log_probs, answerer, text, ends, steps, width):
    """The best response by a beam search without arrays."""
    weights, mixing = np.float32(answerer.weights), answerer.mixing
    beams = [(0.0, (), np.zeros(len(weights)))]
    for _ in range(steps):
        candidates = []
        for beam in beams:
            total, response, past = beam
            if response and response[-1] in ends:
                candidates.append(beam)
                continue
            given = log_probs(answerer.adapters, [*text, *response])
            if mixing.reads_reference:
                totals = total + np.asarray(mixed(given[:-1], weights[:-1], mixing, given[-1]))
            else:
                totals = np.asarray(scored(past[:, None] + given, weights, mixing))
            candidates += [
                (float(total), (*response, token), past + given[:, token])
                for token, total in enumerate(totals)
            ]
        beams = sorted(candidates, key=lambda beam: -beam[0])[:width]
    return list(beams[0][1])


@pytest.mark.parametrize(
    "mixing", [Mixing(), Mixing("forward_kl", legacy_score=True), Mixing("jsd")], ids=str
)
def test_beam_search_finds_what_a_plain_one_finds(params, adapters, prompts, log_probs, mixing):
    tokens, lengths = (each[1:3] for each in prompts)
    members, weights = [(0, 1, 2), (2, 0, 1)], [(0.3, 0.7, 0.0), (0.8, 0.2, 0.0)]
    size = 3 if mixing.reads_reference else 2
    answerers = [
        Answerer(m[:size], w[:size], mixing) for m, w in zip(members, weights, strict=True)
    ]
    stack, ends = side_by_side(adapters, "float32"), tuple(range(0, 40, 4))

    def found(width):
        how = SamplingConfig(4, 0.0, num_beams=width)
        new_tokens, num_tokens = beam_search(
            MODEL, params, stack, answerers, tokens, lengths, ends, how
        )
        rows = zip(new_tokens.tolist(), num_tokens, strict=True)
        return [row[:length] for row, length in rows]

    texts = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    plain = [
        search(log_probs, answerer, text, ends, 4, 3)
        for answerer, text in zip(answerers, texts, strict=True)
    ]
    assert found(3) == plain
    if mixing == Mixing():
        keys, how = row_keys(2, range(2)), SamplingConfig(4, 0.0)
        greedy, num_tokens = decode(
            MODEL, params, adapters, tokens, lengths, keys, ends, how, answerers
        )
        greedy = [greedy[i, i, : num_tokens[i, i]].tolist() for i in range(2)]
        assert found(1) == greedy != plain


def test_a_row_depends_on_no_neighbour(params, adapters, prompts, together):
    """Same tokens in another order, in a smaller batch, and with fewer adapters."""
    tokens, lengths = prompts
    rows = np.array([3, 1])
    few = jax.tree.map(lambda leaf: leaf[:2], adapters)
    part = decode(
        MODEL, params, few, tokens[rows], lengths[rows], row_keys(2, rows), (5, 6), SAMPLING
    )
    for ours, theirs in zip(part, together, strict=True):
        np.testing.assert_array_equal(ours, theirs[:2, rows])


def test_a_row_does_not_depend_on_the_padding(params, adapters, prompts, together):
    tokens, lengths = prompts
    wider = decode(
        MODEL, params, adapters, np.pad(tokens, ((0, 0), (0, 6))), lengths, row_keys(3, range(4)),
        (5, 6), SAMPLING,
    )  # fmt: skip
    for ours, theirs in zip(wider, together, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_key_gives_other_tokens(params, adapters, prompts, together):
    other = decode(MODEL, params, adapters, *prompts, row_keys(3, range(10, 14)), (5, 6), SAMPLING)
    assert (other[0] != together[0]).mean() > 0.3


def test_logits_are_drawn_from_between_their_soft_caps(params, adapters, prompts):
    """Between two that are close together all tokens are as likely as without an embedding."""
    capped = Llama(dataclasses.replace(CONFIG, logit_soft_cap=1e-4), LORA)
    flat = {**params, "lm_head": jnp.zeros_like(params["lm_head"])}
    found, expected = (
        decode(model, weights, adapters, *prompts, row_keys(3, range(4)), (-1,),
               SamplingConfig(8, temperature=1.0))[0]
        for model, weights in ((capped, params), (MODEL, flat))
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected)


def test_end_tokens_end_a_row(together, params, adapters, prompts):
    """Tokens up to the end are those of an endless run; after it there are none."""
    endless, _ = decode(MODEL, params, adapters, *prompts, row_keys(3, range(4)), (-1,), SAMPLING)
    endless, tokens, lengths = endless.reshape(-1, 8), together[0].reshape(-1, 8), together[1]
    ended = 0
    for row, length in enumerate(lengths.ravel()):
        ends = np.flatnonzero(np.isin(endless[row], (5, 6)))
        assert length == (ends[0] + 1 if ends.size else 8)
        ended += bool(ends.size)
        np.testing.assert_array_equal(tokens[row, :length], endless[row, :length])
        assert not tokens[row, length:].any()
    assert 0 < ended < len(tokens)


def test_temperature_and_top_p_do_not_compile_anew(params, adapters, prompts, together):
    programs = (decoder._fill, decoder._advance)
    before = [program._cache_size() for program in programs]
    other = SamplingConfig(8, temperature=0.3, top_p=0.5)
    decode(MODEL, params, adapters, *prompts, row_keys(3, range(4)), (5, 6), other)
    assert [program._cache_size() for program in programs] == before


def test_without_adapters(params, prompts):
    """The bare model, and a stack of one fresh adapter, say the same."""
    fresh = init_adapters(jax.random.key(3), CONFIG, LORA, 1)
    call = functools.partial(
        decode, tokens=prompts[0], lengths=prompts[1], keys=row_keys(1, range(4)),
        eos_token_ids=(5,), sampling=SAMPLING,
    )  # fmt: skip
    bare = call(Llama(CONFIG), params, {})
    np.testing.assert_array_equal(bare[0], call(MODEL, params, fresh)[0])
