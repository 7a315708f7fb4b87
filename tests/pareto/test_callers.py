"""What a caller's own jit and JAX_ENABLE_X64 do to the public functions: nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax import pareto

FIXED = np.random.default_rng(0).normal(size=(1500, 4))
LOW, HIGH = FIXED.min(axis=0), FIXED.max(axis=0)


def everything(rewards, preferences, low, high, candidates=None):
    """The result of each public function on an array of rewards, as numpy arrays."""
    front = np.asarray(rewards)[:9] if not isinstance(rewards, jax.core.Tracer) else rewards[:9]
    results = {
        "rank": pareto.non_dominated_rank(rewards, validate=False),
        "mask": pareto.non_dominated_mask(rewards, validate=False),
        "pool": pareto.pool_layers(rewards, 90, validate=False),
        "range": pareto.reward_range(rewards, "pareto", validate=False),
        "compromise": pareto.compromise_point(preferences, low, high),
        "distance": pareto.ray_distance(rewards, preferences, low, high, validate=False),
        "nearest": pareto.nearest_to_ray(
            rewards, preferences, 5, low, high, candidates=candidates, validate=False
        ),
        "weighted_sum": pareto.largest_weighted_sum(
            rewards, preferences, 5, low, high, candidates=candidates, validate=False
        ),
        "chebyshev": pareto.chebyshev_distance(rewards, preferences, low, high, validate=False),
        "smallest_chebyshev": pareto.smallest_chebyshev_distance(
            rewards, preferences, 5, low, high, candidates=candidates, validate=False
        ),
        "select": pareto.select(rewards, preferences, 5, 90, validate=False),
        "hypervolume": pareto.hypervolume(rewards, low, validate=False),
        "crowding": pareto.crowding_distance(rewards, validate=False),
        "igd": pareto.igd_plus(rewards, front, validate=False),
        "epsilon": pareto.epsilon_indicator(rewards, front, validate=False),
        "generational": pareto.generational_distance(rewards, front, validate=False),
        "spacing": pareto.spacing(rewards, validate=False),
        "sparsity": pareto.sparsity(rewards, validate=False),
    }
    return jax.tree.map(jnp.asarray, results)


def assert_close(results, expected):
    for name, result in results.items():
        leaves = zip(jax.tree.leaves(result), jax.tree.leaves(expected[name]), strict=True)
        for leaf, other in leaves:
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("num_objectives", "num_rows"), [(1, 250), (2, 1500), (3, 250), (4, 250)])
@pytest.mark.parametrize("traced", ["nothing", "preferences", "reference"])
def test_fixed_rewards_inside_a_callers_jit(num_objectives, num_rows, traced):
    """1,500 rows go through a sieve first, 250 do not."""
    rewards = FIXED[:num_rows, :num_objectives]
    low, high = LOW[:num_objectives], HIGH[:num_objectives]
    preferences = np.full((1, num_objectives), 1 / num_objectives)
    expected = everything(rewards, preferences, low, high)
    if traced == "preferences":
        results = jax.jit(lambda w: everything(rewards, w, low, high))(preferences)
    elif traced == "reference":
        results = jax.jit(lambda low: everything(rewards, preferences, low, high))(low)
    else:
        results, _ = jax.jit(lambda x: (everything(rewards, preferences, low, high), x))(1.0)
    assert_close(results, expected)


def test_arrays_that_a_callers_jit_has_narrowed_before():
    """jax remembers them by identity as float32. (So many points need no padding.)"""
    points, reference = np.random.default_rng(0).random((256, 2)), np.full(2, -1.0)

    @jax.jit
    def narrowed_first(x):
        narrow = (x + points).sum() + (x + reference).sum()
        return narrow, pareto.hypervolume(points, reference, validate=False)

    volume = narrowed_first(1.0)[1]
    np.testing.assert_allclose(volume, pareto.hypervolume(points.copy(), reference.copy()))


def test_everything_under_vmap():
    """Each item of a batch gets what it gets alone."""
    batch = np.round(FIXED[:500, :2].reshape(2, 250, 2).astype(np.float32), 1)
    preferences, low, high = pareto.preference_grid(3), LOW[:2], HIGH[:2]
    results = jax.jit(jax.vmap(lambda r: everything(r, preferences, low, high)))(batch)
    alone = [everything(rewards, preferences, low, high) for rewards in batch]
    assert_close(results, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def test_fixed_jax_rewards_inside_a_callers_jit():
    rewards, preferences = jnp.asarray(FIXED[:, :2]), pareto.preference_grid(3)
    chosen = jax.jit(lambda w: pareto.select(rewards, w, 2, 3, validate=False))(preferences)
    expected = pareto.select(rewards, preferences, 2, 3)
    np.testing.assert_array_equal(chosen.row_ids, expected.row_ids)


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
def test_64_bit_mode(num_objectives):
    rewards = np.round(FIXED[:250, :num_objectives].astype(np.float32), 2)  # ties as well
    low, high = LOW[:num_objectives], HIGH[:num_objectives]
    preferences = np.full((1, num_objectives), 1 / num_objectives)
    expected = everything(rewards, preferences, low, high)
    with jax.enable_x64(True):
        outside = everything(rewards, preferences, low, high)
        traced = jax.jit(everything)(jnp.asarray(rewards), preferences, low, high)
        if num_objectives < 4:
            wide = jnp.asarray(rewards, jnp.float64)
            slope = jax.grad(lambda r: pareto.hypervolume(r, low, validate=False))(wide)
            assert slope.dtype == jnp.float64 and np.isfinite(slope).all()
    assert_close(outside, expected)
    assert_close(traced, expected)


def test_float64_is_rounded_on_entry_to_a_callers_jit():
    rewards = np.array([[1.0], [1.0 + 2**-50]])
    assert pareto.non_dominated_rank(rewards).tolist() == [1, 0]
    jitted = jax.jit(lambda r: pareto.non_dominated_rank(r, validate=False))
    assert jitted(rewards).tolist() == [0, 0]
