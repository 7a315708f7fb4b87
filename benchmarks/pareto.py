"""Times paretohqd_jax.pareto beside the libraries people use today, in one run.

    python benchmarks/pareto.py --quick             # two minutes on two cores
    python benchmarks/pareto.py --output table.md   # the full table, about fifteen minutes
    python benchmarks/pareto.py --tasks mask,pool   # some tasks of it
    python benchmarks/pareto.py --rows 10000000     # masks and pools of so many rows
    python benchmarks/pareto.py --scores scores.npy # scores [num_rows, num_objectives] of yours

Peers are those of benchmarks/requirements.txt that are installed. Ours gets numpy float32 (float64
for uniform64, whose values float32 cannot hold), on an accelerator an array that lies there, and is
called as a user would, checks included; peers get contiguous, already negated float64 with the same
values. All take turns in random order within a case; the figures are medians, the ratio is seconds
of the best peer / ours, and our first call less the median is shown apart as compile time. Every
peer's result must equal ours: ranks, masks and pools bit for bit, hypervolumes to 1e-12, distances
of the nearest rows to 1e-6; the ranks of a chain are also known without a peer.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import itertools
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paretohqd_jax import pareto

PEERS = ("moocore", "pymoo", "pygmo", "paretoset", "numba", "optuna", "botorch")
CLOUDS = ("uniform", "gauss", "skew", "dup")
ON_CPU = "ours_on_cpu"
NEAREST = {"rays": pareto.nearest_to_ray, "chebyshev": pareto.smallest_chebyshev_distance}


class Case(NamedTuple):
    task: str
    num_objectives: int
    num_rows: int
    data: str
    size: int = 0  # pool size or number of preferences


# Data: every value is exactly a float32, but for uniform64


def make_data(name: str, num_rows: int, num_objectives: int, scores: np.ndarray | None):
    rng = np.random.default_rng(0)
    shape = (num_rows, num_objectives)
    if name == "uniform64":
        return rng.random(shape)
    if name == "uniform":
        rewards = rng.random(shape)
    elif name in ("gauss", "dup"):
        shared = rng.normal(size=(num_rows, 1))
        signs = np.where(np.arange(num_objectives) % 2, -1, 1)
        rewards = rng.normal(size=shape) + 0.55 * signs * shared  # neighbours correlate by -0.23
        rewards = np.round(rewards, 1) + 0.0 if name == "dup" else rewards
    elif name == "tradeoff":
        rewards = rng.normal(size=shape)
        rewards -= 0.9 * rewards.mean(axis=1, keepdims=True)
    elif name == "skew":
        logs = rng.normal(size=shape) + rng.normal(size=(num_rows, 1))
        rewards = np.exp(logs) * 10.0 ** np.arange(num_objectives)
    elif name == "chain":
        rewards = np.repeat(rng.permutation(num_rows)[:, None], num_objectives, axis=1)
    elif name == "front":
        rewards = rng.integers(0, 2**20 // num_objectives, shape)
        rewards[:, -1] = 2**20 - rewards[:, :-1].sum(axis=1)
    else:
        rewards = scores
    return np.ascontiguousarray(rewards, np.float32)


# Peers: name -> function of (negated float64 points, case), per task


def _moocore():
    return importlib.import_module("moocore")


def _pool_from_ranks(ranks, size):
    return np.where(ranks <= np.partition(ranks, size - 1)[size - 1], ranks, -1)


def moocore_ranks(points, case):
    return _moocore().pareto_rank(points)


def pymoo_ranks(points, case):
    module = importlib.import_module("pymoo.util.nds.non_dominated_sorting")
    return module.NonDominatedSorting().do(points, return_rank=True)[1]


def pygmo_ranks(points, case):
    return importlib.import_module("pygmo").fast_non_dominated_sorting(points)[3].astype(np.int32)


def paretoset_ranks(points, case):
    return importlib.import_module("paretoset").paretorank(points, distinct=False) - 1


def optuna_ranks(points, case):
    module = importlib.import_module("optuna.study._multi_objective")
    return module._fast_non_domination_rank(points)


def moocore_mask(points, case):
    return _moocore().is_nondominated(points, keep_weakly=True)


def paretoset_mask(points, case):
    return importlib.import_module("paretoset").paretoset(points, distinct=False)


def optuna_mask(points, case):
    module = importlib.import_module("optuna.study._multi_objective")
    return module._is_pareto_front(points, assume_unique_lexsorted=False)


def botorch_mask(points, case):
    module = importlib.import_module("botorch.utils.multi_objective.pareto")
    tensor = importlib.import_module("torch").from_numpy(points)
    return module.is_non_dominated(tensor, maximize=False, deduplicate=False).numpy()


def moocore_pool(points, case):
    return _pool_from_ranks(_moocore().pareto_rank(points), case.size)


def moocore_peel_pool(points, case):
    left, pool, layer, found = np.arange(len(points)), np.full(len(points), -1), 0, 0
    while found < case.size:
        front = _moocore().is_nondominated(points[left], keep_weakly=True)
        pool[left[front]] = layer
        layer, found, left = layer + 1, found + front.sum(), left[~front]
    return pool


@functools.cache
def ray_directions(num_rays, num_objectives):
    gaps = 1 - pareto.preference_grid(num_rays, num_objectives)
    return gaps / np.linalg.norm(gaps, axis=1, keepdims=True)


def numpy_rays(points, case):
    """Min-max scaling, one matrix product, argpartition, all on contiguous rows: what one writes
    by hand with some care. The directions are made beforehand."""
    columns = np.ascontiguousarray(points.T)
    low, high = columns.min(axis=1, keepdims=True), columns.max(axis=1, keepdims=True)
    offsets = (columns - low) / (high - low)
    along = ray_directions(case.size, case.num_objectives) @ offsets
    squares = np.subtract((offsets**2).sum(axis=0), np.square(along, out=along), out=along)
    ids = np.argpartition(squares, 100, axis=1)[:, :100]
    return np.sqrt(np.sort(np.maximum(np.take_along_axis(squares, ids, axis=1), 0), axis=1))


def numpy_chebyshev(points, case):
    """As numpy_rays, one preference at a time in arrays that a cache holds, made once."""
    columns = np.ascontiguousarray(points.T)
    low, high = columns.min(axis=1, keepdims=True), columns.max(axis=1, keepdims=True)
    lacks = (columns - low) / (high - low)
    largest, total, lack = np.empty((3, len(points)))
    nearest = []
    for slopes in chebyshev_slopes(case.size, case.num_objectives):
        np.multiply(lacks[0], slopes[0], out=largest)
        total[:] = largest
        for column, slope in zip(lacks[1:], slopes[1:], strict=True):
            np.multiply(column, slope, out=lack)
            np.maximum(largest, lack, out=largest)
            np.add(total, lack, out=total)
        np.multiply(total, 0.01, out=total)
        np.add(largest, total, out=total)
        nearest.append(np.sort(total[np.argpartition(total, 100)[:100]]))
    return np.array(nearest)


@functools.cache
def chebyshev_slopes(num_preferences, num_objectives):
    return 1 / np.maximum(1 - pareto.preference_grid(num_preferences, num_objectives), 1e-3)


def moocore_volume(points, case):
    return _moocore().hypervolume(points, ref=points.max(axis=0) + 1)


def pygmo_volume(points, case):
    return importlib.import_module("pygmo").hypervolume(points).compute(points.max(axis=0) + 1)


def optuna_volume(points, case):
    module = importlib.import_module("optuna._hypervolume")
    return module.compute_hypervolume(points, points.max(axis=0) + 1)


# Slow peers only see sizes they finish in about a second: {task: [(function, largest num_rows)]}.
PEER_TASKS: dict[str, list[tuple[Callable, int]]] = {
    "ranks": [(moocore_ranks, 10**7), (pymoo_ranks, 10**4), (pygmo_ranks, 10**4),
              (paretoset_ranks, 10**4), (optuna_ranks, 10**4)],
    "mask": [(moocore_mask, 10**7), (paretoset_mask, 10**7), (optuna_mask, 10**5),
             (botorch_mask, 10**4)],
    "pool": [(moocore_pool, 10**7), (moocore_peel_pool, 10**7)],
    "rays": [(numpy_rays, 10**7)],
    "chebyshev": [(numpy_chebyshev, 10**7)],
    "hypervolume": [(moocore_volume, 10**7), (pygmo_volume, 10**5), (optuna_volume, 10**5)],
}  # fmt: skip


def too_slow(peer: Callable, case: Case) -> bool:
    """Combinations that take minutes: peeling N fronts, block-nested loops on one front."""
    if case.data == "chain" and case.num_objectives > 2:
        return peer is not paretoset_mask
    if case.data == "chain":
        return peer in (pymoo_ranks, moocore_peel_pool, optuna_ranks, paretoset_ranks)
    if peer is moocore_peel_pool:  # of two objectives layers are thin, and all ranks cost less
        return case.num_objectives == 2 and case.num_rows > 200_000
    if case.data == "front":
        return peer in (paretoset_mask, optuna_mask, botorch_mask, optuna_volume)
    return peer is optuna_volume and case.num_objectives > 2


# Ours


def ours(case: Case, rewards: np.ndarray) -> Callable[[], object]:
    on_accelerator = jax.default_backend() != "cpu" and rewards.dtype == np.float32
    return called(case, rewards, jnp.asarray(rewards) if on_accelerator else rewards)


def ours_on_cpu(case: Case, rewards: np.ndarray) -> Callable[[], object]:
    """Ours on the host of an accelerator."""
    run, host = called(case, rewards, rewards), jax.devices("cpu")[0]

    def on_host() -> object:
        with jax.default_device(host):
            return run()

    return on_host


def called(case: Case, rewards: np.ndarray, given: Any) -> Callable[[], object]:
    """Our function, called with the rewards as they are given."""
    if case.task == "ranks":
        return lambda: np.asarray(pareto.non_dominated_rank(given))
    if case.task == "mask":
        return lambda: np.asarray(pareto.non_dominated_mask(given))
    if case.task == "pool":
        return lambda: np.asarray(pareto.pool_layers(given, case.size))
    if case.task in NEAREST:
        weights, nearest = (
            pareto.preference_grid(case.size, case.num_objectives),
            NEAREST[case.task],
        )
        return lambda: np.asarray(nearest(given, weights, 100, *pareto.reward_range(given))[1])
    wide = rewards.astype(np.float64)  # float64 sums, as the peers
    return lambda: pareto.hypervolume(wide, wide.min(axis=0) - 1)


def agree(task: str, result, peer_result) -> bool:
    if task == "hypervolume":
        return bool(np.isclose(result, peer_result, rtol=1e-12, atol=0))
    if task in NEAREST:
        return bool(np.allclose(result, peer_result, rtol=0, atol=1e-6))
    return np.array_equal(result, peer_result)


def known_result(case: Case, rewards: np.ndarray) -> dict[str, np.ndarray]:
    """What is known without a peer: in a chain of N rows, that of value v has rank N - 1 - v."""
    if case.data != "chain" or case.task not in ("ranks", "mask"):
        return {}
    ranks = (case.num_rows - 1 - rewards[:, 0]).astype(np.int32)
    return {"arithmetic": ranks if case.task == "ranks" else ranks == 0}


# Cases and timing


def cases(quick: bool, rows: int, scores: np.ndarray | None) -> Iterator[Case]:
    if rows:
        for num_objectives, data in itertools.product((2, 3, 4), CLOUDS):
            yield Case("mask", num_objectives, rows, data)
            yield Case("pool", num_objectives, rows, data, 1000)
        return
    if scores is not None:
        sizes = {"ranks": 0, "mask": 0, "pool": 1100, "rays": 11, "chebyshev": 11}
        for task, size in sizes.items():
            yield Case(task, scores.shape[1], len(scores), "scores", size)
        return
    clouds = ("uniform", "dup") if quick else CLOUDS
    shapes = [("ranks", 2, 10**5), ("ranks", 3, 10**5), ("ranks", 4, 10**4), ("mask", 2, 10**4),
              ("mask", 2, 10**5), ("mask", 3, 10**5)]  # fmt: skip
    if not quick:
        shapes += [("ranks", 8, 10**4), ("ranks", 4, 10**5), ("ranks", 8, 10**5),
                   ("ranks", 2, 10**6), ("ranks", 3, 10**6), ("mask", 4, 10**5),
                   ("mask", 2, 10**6), ("mask", 3, 10**6), ("mask", 4, 10**6)]  # fmt: skip
    for task, num_objectives, num_rows in shapes:
        for data in (*clouds, "front", "chain"):
            if num_objectives > 3 and (data == "chain" or (task, data) == ("mask", "front")):
                continue
            yield Case(task, num_objectives, num_rows, data)
        if task == "mask" and num_rows == 10**5:
            yield Case(task, num_objectives, num_rows, "uniform64")
    for num_objectives, size in itertools.product((2, 3), (1000, 5000)[: 1 if quick else 2]):
        for data in (*clouds, "tradeoff", "front", "uniform64"):
            yield Case("pool", num_objectives, 160_000, data, size)
    for task, (num_objectives, size) in itertools.product(NEAREST, ((2, 11), (3, 66))):
        for data in (*clouds, "front"):
            yield Case(task, num_objectives, 160_000, data, size)
    for num_objectives in (2, 3):
        for data in (*clouds, "front", "uniform64"):
            yield Case("hypervolume", num_objectives, 10**5, data)


def seconds(function: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(
    case: Case, scores: np.ndarray | None, budget: float, least_rounds: int = 3
) -> dict[str, Any]:
    """Medians in seconds by name, ours with its spread and first call, and who disagrees."""
    rewards = make_data(case.data, case.num_rows, case.num_objectives, scores)
    points = np.ascontiguousarray(-rewards.astype(np.float64))
    runners = {"ours": ours(case, rewards)}
    if jax.default_backend() != "cpu":
        runners[ON_CPU] = ours_on_cpu(case, rewards)
    for peer, largest in PEER_TASKS[case.task]:
        if case.num_rows <= largest and not too_slow(peer, case):
            runners[peer.__name__] = functools.partial(peer, points, case)
    results, first = {}, {}
    for name, runner in list(runners.items()):
        try:
            first[name], results[name] = seconds(runner)
        except ImportError:
            del runners[name]
    times = {name: [] for name in runners}
    order = random.Random(0)  # else the same peer would always leave us its caches
    start, rounds = time.perf_counter(), 0
    while rounds < least_rounds or (rounds < 15 and time.perf_counter() - start < budget):
        for name in order.sample(list(runners), len(runners)):
            times[name].append(seconds(runners[name])[0])
        rounds += 1
    medians = {name: statistics.median(values) for name, values in times.items()}
    results |= known_result(case, rewards)
    differing = [n for n in results if not agree(case.task, results["ours"], results[n])]
    verdict = f"NOT {', '.join(differing)}" if differing else "all" if len(results) > 1 else "–"
    return {
        "medians": medians,
        "spread": [min(times["ours"]), max(times["ours"])],
        "compile": max(first["ours"] - medians["ours"], 0.0),
        "verdict": verdict,
    }


def row_of(case: Case, found: dict[str, Any]) -> str:
    """A line of the table."""
    medians = dict(found["medians"])
    mine = medians.pop("ours")
    task = f"{case.task} {case.size}" if case.size else case.task
    spread = "–".join(f"{seconds * 1e3:.2f}" for seconds in found["spread"])
    best = min(medians, key=medians.get) if medians else None
    others = ", ".join(
        f"{name} {value * 1e3:.3g}" for name, value in medians.items() if name != best
    )
    return (
        f"| {task} | {case.num_objectives} | {case.num_rows} | {case.data} | {mine * 1e3:.2f} "
        f"[{spread}] | {found['compile']:.1f} | "
        + (
            f"{best} {medians[best] * 1e3:.2f} | **{medians[best] / mine:.2f}**"
            if best
            else "– | –"
        )
        + f" | {found['verdict']} | {others} |"
    )


def versions() -> str:
    def version(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    names = ("jax", "numpy", *PEERS)
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    load = os.getloadavg()[0]
    return (
        f"Python {platform.python_version()}, {packages}; {jax.default_backend()}, "
        f"{os.cpu_count()} cores, load average at the start {load:.1f}."
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases, two minutes")
    parser.add_argument("--tasks", default=",".join(PEER_TASKS), help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=0, help="masks and pools of so many rows only")
    parser.add_argument("--scores", help=".npy file of scores to use in place of made data")
    parser.add_argument("--output", help="file for the table")
    options = parser.parse_args(arguments)
    if unknown := set(options.tasks.split(",")) - set(PEER_TASKS):
        parser.error(f"--tasks: {', '.join(sorted(unknown))}; choose from {', '.join(PEER_TASKS)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    scores = np.load(options.scores) if options.scores else None
    lines = [
        versions(),
        "",
        "| task | M | N | data | ours ms [min–max] | compile s | best peer ms | ratio | equal "
        "| other peers ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for case in cases(options.quick, options.rows, scores):
        if case.task in options.tasks.split(","):
            found = compare(case, scores, budget=0.5 if options.quick else 1.5)
            lines.append(row_of(case, found))
            print(lines[-1], flush=True)
    if options.output:
        with open(options.output, "w") as file:
            file.write("\n".join(lines) + "\n")
    if any("| NOT " in line for line in lines):
        sys.exit("a peer's result differs from ours")


if __name__ == "__main__":
    main()
