"""kill -9 at random moments of a real run, then resume: the same bytes come out.

Also a script: `python tests/test_resume.py 25` kills 25 times and prints where.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paretohqd_jax.methods.paretohqd import STEPS

ROOT = Path(__file__).parents[1]
COMPARED = (
    "scores.parquet",
    "selection/stage1.parquet",
    "generated.parquet",
    "selection/stage2.parquet",
    "evaluation/responses.parquet",
    "evaluation/scores.parquet",
    "evaluation/points.json",
)


def start_run(workdir: Path, cache: Path) -> subprocess.Popen:
    """Starts a toy run; compiled programs are shared, as they would be on a real machine."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "paretohqd_jax.main", "--config=configs/toy.py"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    """Waits for the end of a run that must succeed."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def steps_to_kill(workdir: Path, choose: random.Random) -> tuple[Iterator[str], dict[str, float]]:
    """Steps of a finished run in random order, the longer likelier first, over and over; seconds.

    Every step comes once before any comes twice, so that few kills hit different steps.
    """
    manifest = json.loads((workdir / "manifest.json").read_text())["steps"]
    seconds = {step: manifest[step]["seconds"] for step in STEPS if step in manifest}
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


def kill_at_random_moments(directory: Path, num_kills: int, seed: int = 0) -> list[str]:
    """Runs undisturbed and killed, compares, and returns where the kills hit.

    A run that was killed goes on in the same directory; one that ended before its moment came is
    followed by a new one, until `num_kills` have hit.
    """
    cache, choose = directory / "cache", random.Random(seed)
    finish(start_run(directory / "warm", cache))
    finish(start_run(directory / "whole", cache))
    steps, seconds = steps_to_kill(directory / "whole", choose)
    hits: list[str] = []
    round_number = 0
    while len(hits) < num_kills:
        killed = directory / f"killed{round_number}"
        drawn = itertools.islice(steps, num_kills - len(hits))
        for step in sorted(drawn, key=STEPS.index):
            moment = choose.uniform(0, seconds[step])
            if kill_at(start_run(killed, cache), step, moment):
                hits.append(f"{step} + {moment:.2f} s")
        finish(start_run(killed, cache))
        for name in COMPARED:
            same = (killed / name).read_bytes() == (directory / "whole" / name).read_bytes()
            assert same, f"{killed.name}: {name} differs"
        round_number += 1
    return hits


@pytest.mark.parametrize("num_kills", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, num_kills):
    hits = kill_at_random_moments(tmp_path, num_kills)
    assert len(hits) == num_kills and len({hit.split()[0] for hit in hits}) >= 3, hits


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
        for moment in kill_at_random_moments(Path(directory), count, seed=int(time.time())):
            print(moment)
        print(f"the same bytes after {count} kills: {', '.join(COMPARED)}")
