"""Cheap removal of rows that a few champions dominate, before anything exact runs.

If champions C are rows of the data, the rows that no champion dominates are closed upwards:
whatever dominates a survivor is a survivor. Ranks among survivors are therefore the true ranks.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.pareto.inputs import pad_rows

SAMPLE_PER_OBJECTIVE = 64  # rows among which champions are sought, and whom they must dominate
SMALL = 1024  # so few rows are compared at once rather than sieved further


def sample_rows(rewards: np.ndarray, size: int) -> np.ndarray:
    """Ids of `size` evenly spaced rows."""
    return np.linspace(0, len(rewards) - 1, size).astype(np.int32)


def survivor_size(num_rows: int) -> int:
    """Padded size of what a sieve leaves: a power of two, as all data sets leave another number."""
    return max(SMALL, 1 << (num_rows - 1).bit_length())


@functools.partial(jax.jit, static_argnames="number")
def champions(candidates: jax.Array, sample: jax.Array, number: int = 8) -> jax.Array:
    """Indices [number] of `candidates [C, M]` that together dominate much of `sample [S, M]`.

    Greedy maximum coverage: each champion is the row that dominates most of what the ones before
    it left. It compares and counts only, so neither scale nor skew of the rewards matters.
    O(C S M).
    """
    beats = (candidates[:, None] > sample[None]).all(axis=2)

    def choose(open_rows, _):
        best = (beats & open_rows).sum(axis=1).argmax()
        return open_rows & ~beats[best], best

    return lax.scan(choose, jnp.ones(len(sample), bool), length=number)[1]


@jax.jit
def undominated(rewards: jax.Array, champions: jax.Array) -> jax.Array:
    """Which rows no champion exceeds in every objective: bool [num_rows], one fused pass."""
    survives = jnp.ones(len(rewards), bool)
    for champion in champions:
        survives &= ~(champion > rewards).all(axis=1)
    return survives


@jax.jit
def _sieve(rewards: jax.Array, sample: jax.Array) -> jax.Array:
    return undominated(rewards, sample[champions(sample, sample)])


def survivors(rewards: np.ndarray) -> np.ndarray:
    """Ascending ids of rows among which all non-dominated ones are.

    Passes repeat, with champions from the survivors, as long as each removes a tenth of the
    rows; where nearly everything is non-dominated, one pass is all that is lost.
    """
    ids = np.arange(len(rewards))
    sample_size = SAMPLE_PER_OBJECTIVE * rewards.shape[1]
    while len(ids) > max(SMALL, 2 * sample_size):
        keep = _sieve(pad_rows(rewards), rewards[sample_rows(rewards, sample_size)])
        kept = np.flatnonzero(np.asarray(keep)[: len(ids)])
        if 10 * len(kept) > 9 * len(ids):
            break
        ids, rewards = ids[kept], rewards[kept]
    return ids
