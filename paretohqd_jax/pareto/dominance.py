"""Non-dominated rows, layers and pools.

Row a dominates row b if it is nowhere smaller and somewhere larger (maximisation). Equal rows do
not dominate each other and share a layer. Layer 0 is the set of rows that nothing dominates,
layer l the same once the layers before it are taken away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import sieve
from paretohqd_jax.pareto.divide import front_of_three, ranks_of_three
from paretohqd_jax.pareto.inputs import (
    Array,
    answer_in_kind,
    check_rewards,
    exact_float32,
    is_traced,
    pad_rows,
)
from paretohqd_jax.pareto.order import distinct_rows, order_keys
from paretohqd_jax.pareto.patience import ranks_of_two
from paretohqd_jax.pareto.tiles import front_by_pairs, ranks_by_tiles

POOL_SAMPLE = 2048  # rows whose layers show how deep a pool reaches
POOL_CHAMPIONS = 16
FEW_LAYERS = 4  # so few cost less one front after the other than by ranks
NUM_JUDGES = 256  # rows whose number dominated makes a champion
FEW = 2048  # so few rows are compared pair by pair for a front
VERY_FEW = 384  # for so few, all pairs in numpy cost less than calling a program


def non_dominated_rank(rewards: Array, *, validate: bool = True) -> Array:
    """Layer of each row of `rewards [num_rows, num_objectives]`: int32 [num_rows], 0 the best.

    One objective: a sort. Two: patience sorting, O(N log N). Three: divide and conquer,
    O(N log N log F) for F layers. Others, and all of two and more on accelerators: tiles of
    comparisons, O(N^2 M) with O(N) memory.

    Exact for every input type: float64 values and large integers that float32 would merge are
    replaced by their ranks in the column first (dominance depends on order only). Works under
    `jit` and `vmap`, there with `validate=False`, with which a row with a NaN counts as worst
    throughout: below all others, in one layer with its like, layer 0 if there are no others.
    Under `jit` jax itself rounds float64 arguments to float32 on entry (unless JAX_ENABLE_X64 is
    set).

    Raises InputError for NaN or infinity, naming row and objective, and for an objective with more
    than 2**24 distinct values where float32 cannot hold them exactly.
    """
    array = check_rewards(rewards, validate)
    if array.shape[0] == 0:
        return answer_in_kind(np.zeros(0, np.int32), rewards)
    if is_traced(array):
        return _ranks(array)
    return answer_in_kind(_host_ranks(array), rewards)


def non_dominated_mask(rewards: Array, *, validate: bool = True) -> Array:
    """Whether nothing dominates each row of `rewards [num_rows, num_objectives]`: bool [num_rows].

    Equal to `non_dominated_rank(rewards) == 0`, duplicates included; types, `validate` and
    errors as there. Outside `jit` a sieve first drops what a few champions dominate, O(N M), and
    the exact front is sought among the survivors: with two or three objectives by sweeps,
    O(N log N). Under `jit` there is no sieve: O(N log N) with one objective, on CPUs also with two
    or three, else O(N^2 M).
    """
    array = check_rewards(rewards, validate)
    if array.shape[0] == 0:
        return answer_in_kind(np.zeros(0, bool), rewards)
    if is_traced(array):
        return _front(array)
    return answer_in_kind(_host_front(array), rewards)


def pool_layers(rewards: Array, min_size: int, *, validate: bool = True) -> Array:
    """Layer of each row in the pool, -1 outside: int32 [num_rows].

    The pool is the first whole layers of `rewards [num_rows, num_objectives]` that hold at least
    `min_size` rows together, or all rows if there are fewer. Types, `validate` and errors as in
    `non_dominated_rank`; `min_size`, static under `jit`, must be at least 1. Outside `jit` only
    rows that can be in the pool are ranked (see `_shallow_rows`): O(N M) for the sieve and the cost
    of ranks for the rows it leaves, often some times `min_size`. Under `jit` all rows are ranked.
    """
    if min_size < 1:
        raise InputError(f"min_size: {min_size}; give at least 1")
    array = check_rewards(rewards, validate)
    num_rows = array.shape[0]
    if num_rows == 0:
        return answer_in_kind(np.zeros(0, np.int32), rewards)
    last = min(min_size, num_rows) - 1
    if is_traced(array):
        ranks = _ranks(array)
        return jnp.where(ranks <= jnp.sort(ranks)[last], ranks, -1)
    ids, ranks = _shallow_rows(array, min_size)
    inside = ranks <= np.partition(ranks, last)[last]
    pool = np.full(num_rows, -1, np.int32)
    pool[ids[inside]] = ranks[inside]
    return answer_in_kind(pool, rewards)


@jax.core.eval_context()
def _shallow_rows(rewards: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, ranks) of rows that include every layer of a pool of `min_size` rows.

    Take champions from one layer and rank on their own the rows that they do not dominate, which
    gives the true ranks (see `sieve`). All other rows lie deeper than the shallowest champion, so
    if the layers down to that one hold `min_size` rows, the pool is among them. The first layer
    comes from a sample, by its share of the rows. If its champions prove too shallow, the layer
    found to complete the pool serves next; its champions are deep enough by construction. Rows
    then known to be deeper are left out: a row with a dominator among them also has one in the
    layer itself, which shows it to be too deep.

    Where objectives trade off, champions dominate next to nothing: layers are wide, and those of
    the pool few enough to be peeled.
    """
    num_rows = len(rewards)
    # Deeper than the pool's share of the rows, for a second pass costs more than rows too many.
    wanted = 5 * min_size * POOL_SAMPLE // (2 * num_rows)
    if num_rows >= 4 * POOL_SAMPLE and wanted < POOL_SAMPLE // 4:
        padded = pad_rows(rewards, dtype=np.float32)
        rounded = padded[:num_rows]
        ids = sieve.sample_ids(len(rewards), POOL_SAMPLE)
        ranks = _host_ranks(rewards[ids])
        last = np.partition(ranks, wanted)[wanted]
        if _is_wide((ranks == 0).sum(), rewards.shape[1], min_size):
            if peeled := _peel(rewards, min_size):
                return peeled
        too_deep = ids[:0]
        for _ in range(2):
            layer = ids[ranks == last]
            candidates = layer[sieve.sample_ids(len(layer), NUM_JUDGES)]
            judges = rounded[ids[sieve.sample_ids(len(ids), NUM_JUDGES)]]
            chosen = sieve.champions(rounded[candidates], judges, POOL_CHAMPIONS)
            champions = candidates[np.asarray(chosen)]
            keep = np.array(sieve.undominated(padded, rounded[champions]))[:num_rows]
            keep[too_deep] = False
            ids = np.flatnonzero(keep)
            if len(ids) < min_size or 2 * len(ids) > num_rows:
                break
            ranks = _host_ranks(rewards[ids], sieve.survivor_size(len(ids)))
            last = np.partition(ranks, min_size - 1)[min_size - 1]
            if last <= ranks[np.searchsorted(ids, champions)].min():
                return ids, ranks
            too_deep = ids[ranks > last]
    return np.arange(num_rows), _host_ranks(rewards)


def _is_wide(sample_front: int, num_objectives: int, min_size: int) -> bool:
    """Whether few layers may do: the first one of all rows has 2 to 8 times the sample's rows.

    Of two objectives ranks cost no more than a front.
    """
    return num_objectives > 2 and 2 * sample_front * FEW_LAYERS >= min_size


def _peel(rewards: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(ids, ranks) of a pool's layers, one front after the other; None if they are many."""
    left, layers, num_rows = np.arange(len(rewards)), [], 0
    while num_rows < min_size:
        front = _host_front(rewards[left])
        layers.append(left[front])
        left, num_rows = left[~front], num_rows + len(layers[-1])
        if num_rows + (FEW_LAYERS - len(layers)) * len(layers[-1]) < min_size:
            return None
    ids = np.concatenate(layers)
    ranks = np.repeat(np.arange(len(layers), dtype=np.int32), [len(layer) for layer in layers])
    return ids, ranks


@jax.core.eval_context()
def _host_front(rewards: np.ndarray) -> np.ndarray:
    ids = sieve.survivors(rewards)
    left = rewards[ids]
    if len(left) <= VERY_FEW and (left == left).all():  # nan needs the kernels' order
        front = _front_of_very_few(left)
    else:
        size = None if len(left) == len(rewards) else sieve.survivor_size(len(left))
        front = np.asarray(_jitted_front(pad_rows(exact_float32(left), size)))[: len(left)]
    mask = np.zeros(len(rewards), bool)
    mask[ids] = front
    return mask


def _front_of_very_few(rewards: np.ndarray) -> np.ndarray:
    columns = np.ascontiguousarray(rewards.T)
    as_good = functools.reduce(np.logical_and, (np.greater_equal.outer(c, c) for c in columns))
    as_bad = functools.reduce(np.logical_and, (np.less_equal.outer(c, c) for c in columns))
    return ~(as_good > as_bad).any(axis=0)


@jax.core.eval_context()
def _host_ranks(rewards: np.ndarray, size: int | None = None) -> np.ndarray:
    rewards = exact_float32(rewards)
    if rewards.shape[1] == 3 and _is_one_front(rewards):
        return np.zeros(len(rewards), np.int32)
    return np.asarray(_jitted_ranks(pad_rows(rewards, size)))[: len(rewards)]


def _is_one_front(rewards: np.ndarray) -> bool:
    """Whether nothing dominates anything. Worth a sweep before the divide and conquer, which
    costs three times as much, but only if a sample suggests it."""
    if len(rewards) < 4 * POOL_SAMPLE:
        return False
    sample = rewards[sieve.sample_ids(len(rewards), NUM_JUDGES)]
    if (sample[:, None] > sample[None]).all(axis=2).any():
        return False
    return bool(np.asarray(_jitted_front(pad_rows(rewards)))[: len(rewards)].all())


def _ranks(rewards: jax.Array) -> jax.Array:
    """Sequential loops on CPUs, where XLA compiles them well; wide tiles elsewhere."""
    keys = order_keys(rewards)
    if keys.shape[1] == 1:
        return _ranks_of_one(keys)
    on_cpu = {2: ranks_of_two, 3: ranks_of_three}.get(keys.shape[1], ranks_by_tiles)
    return lax.platform_dependent(keys, cpu=on_cpu, default=ranks_by_tiles)


def _ranks_of_one(keys: jax.Array) -> jax.Array:
    """With one objective each distinct value is a layer."""
    return distinct_rows(keys)[2]


def _front(rewards: jax.Array) -> jax.Array:
    keys = order_keys(rewards)
    if keys.shape[1] == 1:
        return _front_by_ranks(_ranks_of_one)(keys)
    in_general = front_by_pairs if len(keys) <= FEW else _front_by_ranks(ranks_by_tiles)
    on_cpu = {2: _front_by_ranks(ranks_of_two), 3: front_of_three}
    return lax.platform_dependent(
        keys, cpu=on_cpu.get(keys.shape[1], in_general), default=in_general
    )


def _front_by_ranks(ranks: Callable) -> Callable:
    return lambda keys: ranks(keys) == 0


_jitted_ranks = jax.jit(_ranks)
_jitted_front = jax.jit(_front)
