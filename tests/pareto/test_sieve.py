"""What a sieve leaves holds all non-dominated rows, and all that dominates what it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.pareto.sieve import SMALL, survivors


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
@pytest.mark.parametrize("data", ["ties", "near"])
def test_what_is_left_out_is_dominated_by_what_is_left(data, num_objectives):
    rewards = np.random.default_rng(0).normal(size=(4 * SMALL, num_objectives))
    if data == "ties":
        rewards = rewards.round(1)
    else:  # what float32 would make equal
        rewards = 1 + 1e-9 * rewards
        rewards[0] = np.nan
    ids = survivors(rewards)
    assert len(ids) < SMALL and (np.diff(ids) > 0).all()
    left_out, left = np.delete(rewards, ids, axis=0)[:, None], rewards[ids]
    assert not np.isnan(left_out).any()
    dominated = (left_out <= left).all(axis=2) & (left_out < left).any(axis=2)
    assert dominated.any(axis=1).all()
