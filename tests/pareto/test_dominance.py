from __future__ import annotations

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import SET_A
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import (
    dominance,
    non_dominated_mask,
    non_dominated_rank,
    pool_layers,
)
from paretohqd_jax.pareto.inputs import exact_float32, pad_rows

AWKWARD = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, -3e38, np.float32(1) + np.float32(2**-23)]


@st.composite
def reward_matrices(draw, max_rows=40):
    """Few distinct values, so that duplicates and ties abound; float, integer, near-tie, huge."""
    shape = draw(st.integers(0, max_rows)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["small", "awkward", "wide", "near", "integer"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "small":
        return rng.integers(0, rng.integers(1, 9), shape).astype(np.float32)
    if kind == "awkward":
        return rng.choice(np.array(AWKWARD, np.float32), shape)
    if kind == "wide":
        return rng.normal(size=shape) * 10.0 ** rng.integers(-300, 300, shape)
    if kind == "near":
        return 1 + rng.integers(0, 4, shape) * 2.0**-50
    return rng.integers(2**53, 2**53 + 4, shape)


def test_layers_of_worked_example():
    expected = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 3, 4]
    np.testing.assert_array_equal(non_dominated_rank(SET_A), expected)


@pytest.mark.parametrize("min_size, num_rows", [(1, 7), (7, 7), (8, 11), (12, 13), (99, 15)])
def test_pools_of_worked_example_are_whole_layers(min_size, num_rows):
    ranks, pool = non_dominated_rank(SET_A), pool_layers(SET_A, min_size)
    assert (pool >= 0).sum() == num_rows
    np.testing.assert_array_equal(pool[pool >= 0], ranks[pool >= 0])
    assert ranks[pool < 0].min(initial=99) > pool.max()


def test_layers_of_random_example():
    rewards = np.random.default_rng(0).normal(size=(2000, 3))
    sizes = np.bincount(non_dominated_rank(rewards))
    assert sizes[:6].tolist() == [50, 76, 96, 129, 112, 134] and len(sizes) == 24
    pool = pool_layers(rewards, 300)
    assert (pool >= 0).sum() == 351 and pool.max() == 3


@example(np.zeros((0, 3), np.float32))
@example(np.zeros((1, 2)))
@example(np.ones((17, 4)))
@settings(max_examples=100)
@given(reward_matrices())
def test_agrees_with_brute_force(rewards):
    ranks = non_dominated_rank(rewards)
    np.testing.assert_array_equal(ranks, brute_force.ranks(rewards))
    np.testing.assert_array_equal(non_dominated_mask(rewards), ranks == 0)
    np.testing.assert_array_equal(_front_without_numpy(rewards), ranks == 0)
    pool = pool_layers(rewards, 5)
    if len(rewards):
        last = np.sort(ranks)[min(5, len(rewards)) - 1]
        np.testing.assert_array_equal(pool, np.where(ranks <= last, ranks, -1))


def _front_without_numpy(rewards):
    """The mask by the kernels that serve more rows: that of so few is found in numpy."""
    padded = pad_rows(exact_float32(rewards))
    return np.asarray(dominance._jitted_front(padded))[: len(rewards)]


@settings(max_examples=50)
@given(st.integers(2, 4), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_many_small_sets_agree_with_brute_force(num_objectives, num_values, seed):
    """Twenty sets at a time, shifted so that no row of one dominates a row of another."""
    sets = np.random.default_rng(seed).integers(0, num_values, (20, 12, num_objectives))
    expected = np.stack([brute_force.ranks(rewards) for rewards in sets]).ravel()
    shift = num_values * np.arange(20)[:, None]
    sets[..., 0] += shift
    sets[..., 1] -= shift
    together = sets.reshape(-1, num_objectives)
    np.testing.assert_array_equal(non_dominated_rank(together), expected)
    np.testing.assert_array_equal(non_dominated_mask(together), expected == 0)
    np.testing.assert_array_equal(_front_without_numpy(together), expected == 0)


@pytest.mark.parametrize("num_objectives", [2, 3, 6])
@pytest.mark.parametrize("kind", ["gauss", "ties", "chain", "front"])
def test_larger_sets_agree_with_brute_force(num_objectives, kind):
    num_rows = 1500
    rng = np.random.default_rng(num_objectives)
    rewards = {
        "gauss": lambda: rng.normal(size=(num_rows, num_objectives)),
        "ties": lambda: rng.integers(0, 6, (num_rows, num_objectives)),
        "chain": lambda: np.repeat(rng.permutation(num_rows)[:, None], num_objectives, axis=1),
        "front": lambda: _constant_sum(rng, num_rows, num_objectives),
    }[kind]()
    expected = brute_force.ranks(rewards)
    np.testing.assert_array_equal(non_dominated_rank(rewards), expected)
    np.testing.assert_array_equal(non_dominated_mask(rewards), expected == 0)
    for min_size in (1, 50, num_rows):
        last = np.sort(expected)[min_size - 1]
        pool = np.where(expected <= last, expected, -1)
        np.testing.assert_array_equal(pool_layers(rewards, min_size), pool)


def _constant_sum(rng, num_rows, num_objectives):
    rewards = rng.integers(0, 1000, (num_rows, num_objectives))
    rewards[:, -1] = 10_000 - rewards[:, :-1].sum(axis=1)
    return rewards


def test_large_front_of_four_objectives():
    rewards = _constant_sum(np.random.default_rng(5), 2500, 4)
    rewards[1000] = rewards[999] - 1
    mask = non_dominated_mask(rewards)
    np.testing.assert_array_equal(mask, brute_force.ranks(rewards) == 0)
    assert not mask[1000] and mask.sum() == 2499


@settings(max_examples=60)
@given(reward_matrices(), st.randoms(use_true_random=False))
def test_invariants(rewards, random):
    ranks = non_dominated_rank(rewards)
    order = list(range(len(rewards)))
    random.shuffle(order)
    np.testing.assert_array_equal(non_dominated_rank(rewards[order]), ranks[order])
    columns = list(range(rewards.shape[1]))
    random.shuffle(columns)
    np.testing.assert_array_equal(non_dominated_rank(rewards[:, columns]), ranks)
    doubled = non_dominated_rank(np.concatenate([rewards, rewards]))
    np.testing.assert_array_equal(doubled, np.concatenate([ranks, ranks]))


def test_float64_and_large_integers_are_not_merged():
    assert non_dominated_rank(np.array([[1.0], [1.0 + 2**-50]])).tolist() == [1, 0]
    assert non_dominated_rank(np.array([[1e300], [2e300], [-1e-320]])).tolist() == [1, 0, 2]
    assert non_dominated_rank(np.array([[2**24], [2**24 + 1]])).tolist() == [1, 0]
    assert non_dominated_rank(np.array([[2**53 + 1], [2**53]])).tolist() == [0, 1]
    assert non_dominated_rank(np.array([[0], [255]], np.uint8)).tolist() == [1, 0]
    assert non_dominated_rank(np.array([[0.0], [-0.0]])).tolist() == [0, 0]
    assert non_dominated_rank(np.array([[1e-45], [0.0]], np.float32)).tolist() == [0, 1]


def test_answers_in_kind():
    rewards = np.array([[0.0, 1.0], [1.0, 2.0]], np.float32)
    for function in (non_dominated_mask, non_dominated_rank):
        assert isinstance(function(rewards), np.ndarray)
        assert isinstance(function(jnp.asarray(rewards)), jax.Array)
    assert non_dominated_mask(rewards).dtype == bool
    assert non_dominated_rank(rewards).dtype == np.int32
    assert pool_layers(jnp.asarray(rewards), 1).dtype == jnp.int32


def test_new_row_count_of_the_same_bucket_compiles_nothing(caplog):
    first, second = (jnp.asarray(_constant_sum(np.random.default_rng(6), n, 2)) for n in (400, 401))
    functions = (non_dominated_mask, non_dominated_rank, lambda r: pool_layers(r, 9))
    with jax.log_compiles():
        for function in functions:  # compiled here or for a test before this one
            function(first)
        jax.jit(lambda rows: rows)(first)
        assert "Compiling" in caplog.text
        caplog.clear()
        for function in functions:
            function(second)
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
def test_under_jit_and_vmap(num_objectives):
    rewards = np.random.default_rng(1).integers(0, 9, (3, 200, num_objectives)).astype(np.float32)
    expected = np.stack([brute_force.ranks(r) for r in rewards])

    def all_three(rewards):
        return (
            non_dominated_rank(rewards, validate=False),
            non_dominated_mask(rewards, validate=False),
            pool_layers(rewards, 20, validate=False),
        )

    ranks, mask, pool = jax.jit(jax.vmap(all_three))(rewards)
    np.testing.assert_array_equal(ranks, expected)
    np.testing.assert_array_equal(mask, expected == 0)
    np.testing.assert_array_equal(pool, np.stack([pool_layers(r, 20) for r in rewards]))
    integers = jax.jit(lambda r: non_dominated_rank(r, validate=False))(
        rewards[0].astype(int) + 2**30
    )
    np.testing.assert_array_equal(integers, expected[0])


@pytest.mark.parametrize("num_objectives", [2, 3, 4])
def test_sharded_rewards_give_identical_results(num_objectives):
    rewards = np.random.default_rng(2).normal(size=(2048, num_objectives)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = jax.device_put(rewards, NamedSharding(mesh, PartitionSpec("data")))
    assert len(sharded.sharding.device_set) == 8
    expected = brute_force.ranks(rewards)
    np.testing.assert_array_equal(non_dominated_mask(sharded), expected == 0)
    np.testing.assert_array_equal(pool_layers(sharded, 100), pool_layers(rewards, 100))
    jitted = jax.jit(
        lambda r: (non_dominated_mask(r, validate=False), pool_layers(r, 100, validate=False))
    )
    mask, pool = jitted(sharded)
    np.testing.assert_array_equal(mask, expected == 0)
    np.testing.assert_array_equal(pool, pool_layers(rewards, 100))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(bad):
    rewards = np.zeros((5, 3))
    rewards[3, 1] = bad
    for function in (non_dominated_mask, non_dominated_rank, lambda r: pool_layers(r, 2)):
        with pytest.raises(InputError, match="row 3, objective 1"):
            function(rewards)
        with pytest.raises(InputError, match="row 3, objective 1"):
            function(jnp.asarray(rewards))


def test_unchecked_nan_counts_as_worst():
    rewards = np.array([[np.nan, 9.0], [1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    assert non_dominated_rank(rewards, validate=False).tolist() == [2, 0, 0, 1]
    infinite = np.array([[np.inf, -np.inf, 0], [1.0, 1.0, 0], [1.0, -np.inf, 0]])
    assert non_dominated_rank(infinite, validate=False).tolist() == [0, 0, 1]


@pytest.mark.parametrize("num_rows", [4, 9000])
@pytest.mark.parametrize("num_objectives", [2, 3])
def test_nothing_but_nan_is_one_layer(num_rows, num_objectives):
    rewards = np.full((num_rows, num_objectives), np.nan)
    rewards[::2, 0] = 1.0  # a row with one NaN is worth no more
    assert not non_dominated_rank(rewards, validate=False).any()
    assert non_dominated_mask(rewards, validate=False).all()
    assert not pool_layers(rewards, 2, validate=False).any()
    rewards[3] = 0
    assert np.flatnonzero(non_dominated_mask(rewards, validate=False)).tolist() == [3]


def test_bad_shapes_and_types():
    with pytest.raises(InputError, match="shape"):
        non_dominated_rank(np.zeros(3))
    with pytest.raises(InputError, match="shape"):
        non_dominated_rank(np.zeros((3, 0)))
    with pytest.raises(InputError, match="type"):
        non_dominated_rank(np.array([["a", "b"]]))
    with pytest.raises(InputError, match="min_size"):
        pool_layers(np.zeros((3, 2)), 0)
    with pytest.raises(InputError, match="validate=False"):
        jax.jit(non_dominated_rank)(np.zeros((3, 2)))


@pytest.mark.parametrize("num_objectives", [2, 3, 4])
@pytest.mark.parametrize("kind", ["gauss", "ties", "near", "front", "trade-off", "integer"])
def test_pools_of_many_rows(num_objectives, kind):
    """So many rows that the pool ranks survivors of a sieve; the ranks there are plain ones."""
    rng = np.random.default_rng(num_objectives)
    shape = (9000, num_objectives)
    rewards = {
        "gauss": lambda: rng.normal(size=shape),
        "ties": lambda: rng.integers(0, 12, shape),
        "near": lambda: 1 + rng.integers(0, 40, shape) * 2.0**-28,  # float32 merges most of them
        "front": lambda: _constant_sum(rng, *shape),
        "trade-off": lambda: np.round(_trade_off(rng, *shape), 2),
        "integer": lambda: rng.integers(2**53, 2**53 + 40, shape),
    }[kind]()
    ranks = non_dominated_rank(rewards)
    small = rng.choice(len(rewards), 300, replace=False)
    np.testing.assert_array_equal(
        non_dominated_rank(rewards[small]), brute_force.ranks(rewards[small])
    )
    np.testing.assert_array_equal(non_dominated_mask(rewards), ranks == 0)
    for min_size in (40, 400):
        last = np.sort(ranks)[min_size - 1]
        pool = np.where(ranks <= last, ranks, -1)
        np.testing.assert_array_equal(pool_layers(rewards, min_size), pool)


def _trade_off(rng, num_rows, num_objectives):
    rewards = rng.normal(size=(num_rows, num_objectives))
    return rewards - 0.9 * rewards.mean(axis=1, keepdims=True)


def test_wide_layers_are_peeled_and_thin_ones_are_not():
    rewards = _trade_off(np.random.default_rng(1), 9000, 3)
    ranks = non_dominated_rank(rewards)
    two_layers = int((ranks <= 1).sum())
    ids, layers = dominance._peel(rewards, two_layers)
    np.testing.assert_array_equal(np.sort(ids), np.flatnonzero(ranks <= 1))
    np.testing.assert_array_equal(layers, ranks[ids])
    assert dominance._peel(rewards, int((ranks <= dominance.FEW_LAYERS + 1).sum())) is None
    assert dominance._peel(np.repeat(np.arange(50.0)[:, None], 3, axis=1), 9) is None
    assert dominance._is_wide(100, 3, 800) and not dominance._is_wide(100, 3, 801)
    assert not dominance._is_wide(100, 2, 800)


def test_many_values_of_one_objective():
    """Quadratic time would take minutes here."""
    values = np.random.default_rng(6).integers(0, 150_000, 200_000)
    ranks = np.unique(-values, return_inverse=True)[1]
    np.testing.assert_array_equal(non_dominated_rank(values[:, None]), ranks)
    traced = jax.jit(lambda r: non_dominated_rank(r, validate=False))(values[:, None])
    np.testing.assert_array_equal(traced, ranks)
    np.testing.assert_array_equal(non_dominated_mask(values[:, None]), ranks == 0)
