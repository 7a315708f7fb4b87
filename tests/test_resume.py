"""kill -9 at ten random moments of a real run, then resume: the same bytes come out.

Also a script: `python tests/test_resume.py 25` kills 25 times and prints where.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPARED = (
    "scores.parquet",
    "selection/stage1.parquet",
    "selection/stage1.json",
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


def finish(process: subprocess.Popen) -> float:
    """Waits for the end of a run that must succeed; seconds of work, start-up not counted."""
    work_started = wait_for_work(process)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - work_started


def wait_for_work(process: subprocess.Popen) -> float:
    for line in process.stderr:
        if ": started" in line or ": up to date" in line:
            break
    return time.monotonic()


def kill_at_random_moments(directory: Path, num_kills: int, seed: int = 0) -> list[str]:
    """Runs undisturbed and killed; returns what was in progress at each kill."""
    finish(start_run(directory / "warm", directory / "cache"))
    work_seconds = finish(start_run(directory / "whole", directory / "cache"))
    moments = random.Random(seed)
    interrupted = []
    for _ in range(num_kills):
        process = start_run(directory / "killed", directory / "cache")
        wait_for_work(process)
        time.sleep(moments.uniform(0, 2.5 * work_seconds / num_kills))
        process.kill()
        _, errors = process.communicate()
        steps = [line for line in errors.splitlines() if ": started" in line or ": done" in line]
        interrupted.append(steps[-1] if steps else "first step")
    finish(start_run(directory / "killed", directory / "cache"))
    for name in COMPARED:
        whole, killed = (directory / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes(), name
    return interrupted


def test_a_run_killed_ten_times_ends_with_the_same_bytes(tmp_path):
    interrupted = kill_at_random_moments(tmp_path, num_kills=10)
    assert len(set(interrupted)) >= 3, interrupted


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
        for moment in kill_at_random_moments(Path(directory), count, seed=int(time.time())):
            print(moment)
        print(f"the same bytes after {count} kills: {', '.join(COMPARED)}")
