"""The model against the reference's stored logits, and its invariants."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.cache import begin_rows, empty_cache, extend_rows, longer_cache
from paretohqd_jax.models.layers import apart, stacked
from paretohqd_jax.models.llama import (
    Llama,
    LlamaConfig,
    compute_logits,
    init_params,
    output_embedding,
)
from paretohqd_jax.models.lora import LoraConfig, init_adapters, side_by_side
from paretohqd_jax.models.rope import rope_frequencies
from paretohqd_jax.models.weights import load_pretrained

GOLDEN = Path(__file__).parent / "golden"
CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    rope_theta=700.0,
)
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "v_proj", "up_proj"))


@pytest.fixture(scope="module")
def params():
    params = init_params(jax.random.key(0), CONFIG)
    return jax.tree.map(lambda leaf: 5 * leaf if leaf.ndim > 1 else leaf, params)


@pytest.fixture(scope="module")
def adapters():
    """Three adapters whose b is not zero."""
    adapters = init_adapters(jax.random.key(1), CONFIG, LORA, 3)
    leaves, structure = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy)


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(3), (2, 20), 0, CONFIG.vocab_size)


@functools.partial(jax.jit, static_argnames=("model", "deterministic"))
def logits_of(model, params, adapter, tokens, mask=None, deterministic=True, rngs=None):
    variables = {"params": params, "lora": adapter}
    hidden, _ = model.apply(variables, tokens, mask, deterministic=deterministic, rngs=rngs)
    return compute_logits(hidden, output_embedding(params, model.config))


@pytest.mark.parametrize("name", ["untied", "tied", "llama3"])
def test_logits_equal_the_reference(name):
    golden = np.load(GOLDEN / "checkpoints.npz")
    assert golden["tokens"].size >= 128
    config, params = load_pretrained(str(GOLDEN / name))
    logits = logits_of(Llama(config), params, {}, golden["tokens"][None])[0]
    np.testing.assert_allclose(logits, golden[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["theta", "scaling", "eps"])
def test_golden_logits_notice_each_constant(change):
    """The goldens would fail a model that ignored a field of the configuration."""
    golden = np.load(GOLDEN / "checkpoints.npz")
    config, params = load_pretrained(str(GOLDEN / "llama3"))
    wrong = {
        "theta": {"rope_theta": 10000.0},
        "scaling": {"rope_scaling": None},
        "eps": {"rms_norm_eps": 1e-2},
    }[change]
    model = Llama(dataclasses.replace(config, **wrong))
    logits = logits_of(model, params, {}, golden["tokens"][None])[0]
    assert np.abs(logits - golden["llama3"]).max() > 1e-2


def test_rope_scaling_keeps_fast_and_divides_slow_frequencies():
    config, _ = load_pretrained(str(GOLDEN / "llama3"))
    scaled, plain = (
        rope_frequencies(config.head_dim, config.rope_theta, scaling, None)
        for scaling in (config.rope_scaling, None)
    )
    ratio = np.asarray(scaled / plain)
    assert ratio[0] == 1.0
    np.testing.assert_allclose(ratio[-1], 1 / 8)
    assert np.any((ratio > 1 / 8) & (ratio < 1))


def test_cached_and_uncached_logits_agree(params, adapters, tokens):
    """Prompts padded on the right, then one token at a time, each row with its own adapter."""
    model = Llama(CONFIG, LORA)
    lengths, num_steps, rows = np.array([12, 7]), 8, np.arange(2)
    adapter_ids = jnp.array([2, 1])
    variables = {"params": apart(params), "lora": side_by_side(adapters, "float32")}

    @jax.jit
    def prefill(tokens):
        mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
        return model.apply(variables, tokens, mask, adapter_ids=adapter_ids)

    @jax.jit
    def step(cache, token):
        hidden, written = model.apply(variables, token, None, cache, adapter_ids=adapter_ids)
        return hidden[:, 0], extend_rows(cache, written, jnp.ones(2, bool))

    hidden, written = prefill(tokens[:, :12])
    shape = (CONFIG.num_layers, 2, CONFIG.num_kv_heads, 20, CONFIG.head_dim)
    cache = begin_rows(empty_cache(shape, "float32"), rows, written, lengths)
    pieces = [hidden[rows, lengths - 1]]
    for number in range(num_steps):
        hidden, cache = step(cache, tokens[rows, lengths + number][:, None])
        pieces.append(hidden)
    assert cache.lengths.tolist() == (lengths + num_steps).tolist()
    for row in rows:
        adapter = jax.tree.map(lambda leaf, row=row: leaf[adapter_ids[row]], adapters)
        text = tokens[row : row + 1, : lengths[row] + num_steps]
        whole, _ = model.apply({"params": params, "lora": adapter}, text)
        stepwise = np.stack([piece[row] for piece in pieces])
        np.testing.assert_allclose(stepwise, whole[0, lengths[row] - 1 :], atol=2e-5)


def test_layers_apart_are_the_same_ones(params):
    layers = apart(params)["layers"]
    assert len(layers) == CONFIG.num_layers
    jax.tree.map(np.testing.assert_array_equal, stacked(apart(params)), params)


def test_rows_begin_where_they_are_told(tokens):
    shape = (CONFIG.num_layers, 3, CONFIG.num_kv_heads, 8, CONFIG.head_dim)
    empty = empty_cache(shape, "float32")
    written = (jnp.ones((*shape[:1], 3, *shape[2:3], 5, CONFIG.head_dim)),) * 2
    cache = begin_rows(empty, jnp.array([2, 3, 0]), written, jnp.array([4, 9, 5]))
    assert cache.lengths.tolist() == [5, 0, 4]  # row 3 does not exist
    np.testing.assert_array_equal(np.any(cache.keys, axis=(0, 2, 3, 4)), [True, False, True])
    np.testing.assert_array_equal(cache.mask.sum(axis=1), [5, 0, 4])
    longer = longer_cache(cache, 12)
    np.testing.assert_array_equal(np.array(longer.values)[:, :, :, :8], cache.values)
    assert longer.mask.shape == (3, 12)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_logits(params, tokens, side):
    model = Llama(CONFIG)
    expected = logits_of(model, params, {}, tokens)
    width = ((0, 0), (7, 0) if side == "left" else (0, 7))
    padded = jnp.pad(tokens, width, constant_values=9)
    mask = jnp.pad(jnp.ones(tokens.shape, bool), width)
    logits = logits_of(model, params, {}, padded, mask)
    logits = logits[:, 7:] if side == "left" else logits[:, :-7]
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_later_tokens_do_not_change_earlier_logits(params, tokens):
    model = Llama(CONFIG)
    changed = tokens.at[:, 10:].set(0)
    before = logits_of(model, params, {}, tokens)[:, :10]
    np.testing.assert_allclose(logits_of(model, params, {}, changed)[:, :10], before, atol=1e-6)


def test_stacked_adapters_equal_one_by_one(params, adapters, tokens):
    model = Llama(CONFIG, LORA)
    together = jax.vmap(lambda adapter: logits_of(model, params, adapter, tokens))(adapters)
    for i in range(3):
        adapter = jax.tree.map(lambda leaf, i=i: leaf[i], adapters)
        np.testing.assert_allclose(
            together[i], logits_of(model, params, adapter, tokens), atol=2e-5
        )
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_base_matmuls_stay_single_under_vmap(params, adapters, tokens):
    """No dot of the stacked program may have a base kernel with the adapters as batch axis."""
    model = Llama(CONFIG, LORA)
    jaxpr = jax.make_jaxpr(
        jax.vmap(lambda adapter: model.apply({"params": params, "lora": adapter}, tokens)[0])
    )(adapters)
    kernels = {(32, 32), (32, 16), (32, 48), (48, 32)}
    seen = [
        equation.params["dimension_numbers"]
        for equation in _equations(jaxpr.jaxpr)
        if equation.primitive.name == "dot_general"
        and tuple(equation.invars[1].aval.shape) in kernels
    ]
    assert len(seen) == 7  # one per projection
    assert all(batch == ((), ()) for _, batch in seen)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_fresh_adapters_leave_the_output_unchanged(params, tokens):
    fresh = init_adapters(jax.random.key(5), CONFIG, LORA, 1)
    adapter = jax.tree.map(lambda leaf: leaf[0], fresh)
    with_adapter = logits_of(Llama(CONFIG, LORA), params, adapter, tokens)
    without = logits_of(Llama(CONFIG), params, {}, tokens)
    np.testing.assert_allclose(with_adapter, without, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(params, adapters, tokens, remat):
    adapter = jax.tree.map(lambda leaf: leaf[0], adapters)

    def gradient(config):
        def loss(adapter):
            return jnp.mean(logits_of(Llama(config, LORA), params, adapter, tokens) ** 2)

        return jax.jit(jax.grad(loss))(adapter)

    expected = gradient(CONFIG)
    actual = gradient(dataclasses.replace(CONFIG, remat=remat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), actual, expected
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected))


def test_dropout_needs_a_key_and_changes_only_the_adapter_path(params, adapters, tokens):
    model = Llama(CONFIG, LORA)
    adapter = jax.tree.map(lambda leaf: leaf[0], adapters)
    with pytest.raises(ValueError, match="rngs"):
        logits_of(model, params, adapter, tokens, deterministic=False)
    first, again, other = (
        logits_of(
            model, params, adapter, tokens, deterministic=False, rngs={"dropout": jax.random.key(k)}
        )
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    # With b = 0 nothing of the dropout can be seen.
    silent = {"layers": {t: {**f, "b": 0 * f["b"]} for t, f in adapter["layers"].items()}}
    dropped = logits_of(
        model, params, silent, tokens, deterministic=False, rngs={"dropout": jax.random.key(0)}
    )
    np.testing.assert_allclose(dropped, logits_of(Llama(CONFIG), params, {}, tokens), atol=1e-5)


def test_missing_adapter_is_an_error(params, tokens):
    with pytest.raises(ValueError, match="lora"):
        Llama(CONFIG, LORA).apply({"params": params}, tokens)


def test_bfloat16_stays_near_float32(params, adapters, tokens):
    adapter = jax.tree.map(lambda leaf: leaf[0], adapters)
    expected = logits_of(Llama(CONFIG, LORA), params, adapter, tokens)
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    logits = logits_of(Llama(config, LORA), half, adapter, tokens)
    assert logits.dtype == jnp.float32
    assert np.abs(logits - expected).mean() < 0.05 * np.abs(expected).mean()


@pytest.mark.parametrize(
    "change, word",
    [({"num_kv_heads": 3}, "heads"), ({"dtype": "float64"}, "dtype"), ({"remat": "some"}, "remat")],
)
def test_impossible_configurations_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        dataclasses.replace(CONFIG, **change)
