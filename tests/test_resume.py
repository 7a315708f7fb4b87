"""kill -9 at random moments of a real run, then resume: the same bytes come out.

Also a script: `python tests/test_resume.py 25` kills 25 times and prints where.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from paretohqd_jax.methods import METHODS

ROOT = Path(__file__).parents[1]
COMPARED = ("*.parquet", "*.npy", "policies.json", "selection/*", "ric/*", "evaluation/*",
            "*/answers/*")  # fmt: skip


def files_to_compare(workdir: Path) -> list[Path]:
    """Of a run directory, relative to it: rows, arrays, selections and measures."""
    return [
        path.relative_to(workdir) for pattern in COMPARED for path in sorted(workdir.glob(pattern))
    ]


def start_run(workdir: Path, options: Sequence[str], environment: dict[str, str]):
    """Starts a run, whose log is read."""
    return subprocess.Popen(
        [sys.executable, "-m", "paretohqd_jax.main", *options, f"--workdir={workdir}"],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    """Waits for the end of a run that must succeed."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def steps_to_kill(
    workdir: Path, choose: random.Random, within: Sequence[str] = ()
) -> tuple[Iterator[str], dict[str, float]]:
    """Steps of a finished run in random order, the longer likelier first, over and over; seconds.

    Every step comes once before any comes twice, so that few kills hit different steps. They are
    those `within`, or all.
    """
    method = json.loads((workdir / "config.json").read_text())["method"]
    manifest = json.loads((workdir / "manifest.json").read_text())["steps"]
    steps = within or importlib.import_module(METHODS[method]).STEPS
    seconds = {step: manifest[step]["seconds"] for step in steps if step in manifest}
    order = sorted(seconds, key=lambda step: choose.expovariate(max(seconds[step], 1e-3)))
    return itertools.cycle(order), seconds


def kill_at(process: subprocess.Popen, step: str, seconds: float) -> bool:
    """kill -9, so many seconds into a step; False if the run had ended or passed it."""
    reached = any(f" {step}: started" in line for line in process.stderr)
    time.sleep(seconds if reached else 0)
    running = process.poll() is None
    process.kill()
    process.communicate()
    return reached and running


def kill_at_random_moments(
    directory: Path,
    num_kills: int,
    whole: Path,
    options: Sequence[str],
    environment: dict[str, str],
    seed: int = 0,
    within: Sequence[str] = (),
) -> list[str]:
    """Kills runs of the options that the run `whole` had, compares; returns where the kills hit.

    A run that was killed goes on in the same directory; one that ended before its moment came is
    followed by a new one, until `num_kills` have hit.
    """
    choose = random.Random(seed)
    steps, seconds = steps_to_kill(whole, choose, within)
    hits: list[str] = []
    round_number = 0
    while len(hits) < num_kills:
        killed = directory / f"killed{round_number}"
        drawn = itertools.islice(steps, num_kills - len(hits))
        for step in sorted(drawn, key=list(seconds).index):
            moment = choose.uniform(0, seconds[step])
            if kill_at(start_run(killed, options, environment), step, moment):
                hits.append(f"{step} + {moment:.2f} s")
        finish(start_run(killed, options, environment))
        for name in files_to_compare(whole):
            same = (killed / name).read_bytes() == (whole / name).read_bytes()
            assert same, f"{killed.name}: {name} differs"
        round_number += 1
    return hits


def kill_toy_runs(
    directory: Path,
    num_kills: int,
    seed: int = 0,
    method: str = "paretohqd",
    within: Sequence[str] = (),
) -> list[str]:
    """Does so with a method's toy; compiled programs are shared, as they would be in real use."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(directory / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    toy = (f"--config=configs/toy.py:{method}",)
    for name in ("warm", "whole"):
        finish(start_run(directory / name, toy, environment))
    return kill_at_random_moments(
        directory, num_kills, directory / "whole", toy, environment, seed, within
    )


@pytest.mark.slow
def test_a_run_killed_often_ends_with_the_same_bytes(tmp_path):
    """tests/distributed/test_whole_runs.py kills a smaller run, less often."""
    hits = kill_toy_runs(tmp_path, 10)
    assert len(hits) == 10 and len({hit.split()[0] for hit in hits}) >= 3, hits


@pytest.mark.slow
@pytest.mark.parametrize("method", ["raco", "modpo", "mod", "mopo"])
def test_so_do_runs_of_other_methods(tmp_path, method):
    """Gradients that are combined; a stack upon another; decoding by several models; duals that are
    carried along."""
    hits = kill_toy_runs(tmp_path, 4, method=method)
    assert len({hit.split()[0] for hit in hits}) >= 3, hits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "within"),
    [("ric", ("offline", "generate1", "rescore1", "mix1", "online1")), ("morlhf", ("morlhf",))],
)
def test_so_do_runs_that_sample_score_and_learn(tmp_path, method, within):
    """In steps of their own, or over and over in one; that of `rewarded_soup` is MORLHF's."""
    hits = kill_toy_runs(tmp_path, 5, method=method, within=within)
    assert {hit.split()[0] for hit in hits} == {*within}, hits


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
        for moment in kill_toy_runs(Path(directory), count, seed=int(time.time())):
            print(moment)
        print(f"the same bytes after {count} kills")
