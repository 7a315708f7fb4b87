"""Cheap removal of rows that a few champions dominate, before anything exact runs.

If champions C are rows of the data, the rows that no champion dominates are closed upwards:
whatever dominates a survivor is a survivor. Ranks among survivors are therefore the true ranks.
A champion must be larger in every objective, so all of this also holds for rewards rounded to
float32, and exact values are needed of survivors only.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.pareto.inputs import Array, pad_rows

SAMPLE = 4096  # rows that stand for all when champions are sought
CANDIDATES = 256  # rows compared with each other, the champions being the best of them
NUM_CHAMPIONS = 8  # of a pass
SMALL = 1024  # so few rows are compared at once rather than sieved further
IN_CACHE = 1 << 17  # so few rows of two or three objectives are sieved in numpy
FEW_CANDIDATES = 128  # of a pass there
WORTH_A_PASS = 4  # of them that a champion has to remove
GOLDEN_RATIO = 2654435769  # (sqrt(5) - 1) / 2 in units of 2**-32


def sample_ids(num_rows: int | jax.Array, size: int) -> Array:
    """Ids of `size` of so many rows, spread evenly, as are any first ones of them (Weyl's
    sequence). Call a traced `num_rows` under `jax.enable_x64(True)`."""
    fractions = np.arange(size, dtype=np.uint64) * GOLDEN_RATIO & 0xFFFFFFFF
    return (fractions * num_rows >> 32).astype(np.int32)


def survivor_size(num_rows: int) -> int:
    """Padded size of what a sieve leaves: a power of two, as all data sets leave another number."""
    return max(SMALL // 2, 1 << (num_rows - 1).bit_length())


@functools.partial(jax.jit, static_argnames="number")
def champions(candidates: jax.Array, sample: jax.Array, number: int = NUM_CHAMPIONS) -> jax.Array:
    """Indices [number] of `candidates [C, M]` that together dominate much of `sample [S, M]`.

    Greedy maximum coverage: each champion is the row that dominates most of what the ones before
    it left. It compares and counts only, so neither scale nor skew of the rewards matters.
    O(C S M).
    """
    beats = _exceeds(candidates[:, None], sample[None]).astype(jnp.float32)

    def choose(open_rows, _):
        best = (beats @ open_rows).argmax()
        return open_rows * (1 - beats[best]), best

    return lax.scan(choose, jnp.ones(len(sample)), length=number)[1]


@jax.jit
def undominated(rewards: jax.Array, champions: jax.Array) -> jax.Array:
    """Which rows no champion exceeds in every objective: bool [num_rows], one fused pass."""
    survives = jnp.ones(len(rewards), bool)
    for champion in champions:
        survives &= ~_exceeds(champion, rewards)
    return survives


def _exceeds(rows: jax.Array, others: jax.Array) -> jax.Array:
    """Whether rows are larger in every objective, the last axis; written out, since XLA's CPU
    backend is slow to reduce over a short last axis."""
    pairs = ((rows[..., m], others[..., m]) for m in range(rows.shape[-1]))
    return functools.reduce(jnp.logical_and, (row > other for row, other in pairs))


@jax.jit
def _sieve(rewards: jax.Array, num_rows: jax.Array) -> jax.Array:
    """Which rows may be non-dominated: bool [padded size], of which the first `num_rows` count.

    Champions of the first rows of a sample, then of the first ones that those leave there: rows
    better than most of thousands, at the price of comparing a few hundred.
    """
    with jax.enable_x64(True):
        ids = sample_ids(num_rows.astype(jnp.uint64), SAMPLE)
    sample = rewards[ids]
    first = sample[:CANDIDATES]
    coarse = first[champions(first, first)]
    left = undominated(sample, coarse)
    second = sample[jnp.flatnonzero(left, size=CANDIDATES, fill_value=0)]
    fine = second[champions(second, second)]
    return undominated(rewards, jnp.concatenate([coarse, fine]))


def survivors(rewards: np.ndarray) -> np.ndarray:
    """Ascending ids of rows among which all non-dominated ones are.

    Passes repeat, with champions from the survivors, as long as each removes a tenth of the
    rows; where nearly everything is non-dominated, one pass is all that is lost.
    """
    ids, size = np.arange(len(rewards), dtype=np.int32), None
    few_objectives = rewards.shape[1] <= 3
    while len(ids) > (IN_CACHE if few_objectives else SMALL):
        keep = _sieve(pad_rows(rewards, size, dtype=np.float32), np.int32(len(ids)))
        kept = np.flatnonzero(np.asarray(keep)[: len(ids)])
        if 10 * len(kept) > 9 * len(ids):
            return ids
        ids, rewards = ids[kept], rewards[kept]
        size = survivor_size(len(ids))
    return ids[_survivors_in_numpy(rewards)] if few_objectives and len(ids) > SMALL else ids


def _survivors_in_numpy(rewards: np.ndarray) -> np.ndarray:
    """The same without a program, whose call alone costs as much as two or three objectives do.

    A pass takes champions while each removes some of the candidates that the ones before it left.
    """
    ids, columns = np.arange(len(rewards), dtype=np.int32), np.ascontiguousarray(rewards.T)
    while len(ids) > CANDIDATES:
        candidates = columns[:, sample_ids(len(ids), FEW_CANDIDATES)]
        beats = _dominates(candidates[..., None], candidates[:, None]).astype(np.float32)
        open_rows, gone = np.ones(FEW_CANDIDATES, np.float32), np.zeros(len(ids), bool)
        for _ in range(NUM_CHAMPIONS):
            removed = beats @ open_rows
            best = removed.argmax()
            if removed[best] < WORTH_A_PASS:
                break
            open_rows *= 1 - beats[best]
            gone |= _dominates(candidates[:, best], columns)
        kept = np.flatnonzero(~gone)
        if 10 * len(kept) > 9 * len(ids):
            break
        ids, columns = ids[kept], columns.take(kept, axis=1)  # half the time of [:, kept]
    return ids


def _dominates(columns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether rows, the last axes, are larger in the first objective and nowhere smaller; exact
    values alone, of which rounding has made none equal."""
    nowhere_smaller = map(np.greater_equal, columns[1:], others[1:])
    return functools.reduce(np.logical_and, nowhere_smaller, columns[0] > others[0])
