"""Whole toy runs in one process and in two: the same numbers, also after SIGTERM and kills.

Those of eight devices in one process are compared in tests/methods/test_meshes.py.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jobs import ROOT, free_port
from test_resume import files_to_compare, kill_at_random_moments

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.training.metrics import read_metrics

# The smallest run with all steps.
OPTIONS = (
    "--config=configs/toy.py",
    "--config.data.num_test_prompts=3",
    "--config.train.stage1_steps=16",
    "--config.train.stage2_steps=2",
    "--config.train.learning_rate=1e-2",
    "--config.train.checkpoint_every=5",
    "--config.evaluate.max_new_tokens=4",
)
NUM_STEPS = {"stage1": 16, "stage2": 2}
SECONDS_TO_RUN = 1500
SECONDS_TO_END = 200.0
ALONE = [sys.executable, "-m", "paretohqd_jax.main"]
TOGETHER = ["launch/local_multiprocess.sh", "2", "2"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def environment(num_devices: int) -> dict[str, str]:
    return os.environ | {
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(workdir: Path, command: list[str]) -> Path:
    """A run that must succeed; SIGTERM, which the script passes on, ends one that hangs."""
    done = subprocess.run(
        ["timeout", str(SECONDS_TO_RUN), *command, *OPTIONS, f"--workdir={workdir}"],
        cwd=ROOT, env=environment(1), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def two_processes(directory):
    return run(directory / "two", TOGETHER)


@pytest.fixture(scope="module")
def one_process(directory):
    return run(directory / "one", ALONE)


def metrics(workdir: Path, stage: str) -> dict[tuple[str, int], float]:
    """What the TensorBoard events of a stage hold, by name and step."""
    found = read_metrics(workdir / "logs" / stage)
    return {(name, step): value for name, steps in found.items() for step, value in steps.items()}


def assert_same_run(workdir: Path, other: Path) -> None:
    """The same losses up to rounding, and the same rows and responses."""
    for stage, steps in NUM_STEPS.items():
        values, expected = metrics(workdir, stage), metrics(other, stage)
        losses = sorted(key for key in expected if key[0].startswith("loss/"))
        assert len(losses) == 4 * steps
        np.testing.assert_allclose(
            [values[key] for key in losses], [expected[key] for key in losses], rtol=0, atol=1e-5
        )
    for name in ("selection/stage1.parquet", "selection/stage2.parquet"):
        rows = [read_table(path / name)["row_id"].to_pylist() for path in (workdir, other)]
        assert rows[0] == rows[1]
    texts = [read_table(path / "generated.parquet")["response"] for path in (workdir, other)]
    assert texts[0].to_pylist() == texts[1].to_pylist()


def test_two_processes_of_two_devices_train_and_select_as_one(two_processes, one_process):
    assert_same_run(two_processes, one_process)


def test_a_killed_run_ends_with_the_same_bytes(directory, one_process):
    """kill -9 at a random moment of a step; tests/test_resume.py kills more often."""
    assert len(kill_at_random_moments(directory, 1, one_process, OPTIONS, environment(1))) == 1


def start_two(workdir: Path) -> list[subprocess.Popen]:
    port = free_port()
    return [
        subprocess.Popen(
            [*ALONE, *OPTIONS, f"--workdir={workdir}", f"--coordinator=localhost:{port}",
             "--num_processes=2", f"--process_id={process}"],
            cwd=ROOT, env=environment(2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for process in range(2)
    ]  # fmt: skip


def last_step(workdir: Path) -> int:
    return max((step for _, step in metrics(workdir, "stage1")), default=-1)


def signal_at(workdir: Path, process: int, step: int, number: int) -> list[int]:
    """Starts two processes, sends one of them a signal at a step; returns how both ended."""
    processes = start_two(workdir)
    deadline = time.monotonic() + SECONDS_TO_RUN
    try:
        while last_step(workdir) < step:
            assert all(each.poll() is None for each in processes), "ended before the step"
            assert time.monotonic() < deadline, "the step does not come"
            time.sleep(0.02)
        processes[process].send_signal(number)
        deadline = time.monotonic() + SECONDS_TO_END
        return [each.wait(deadline - time.monotonic()) for each in processes]
    finally:
        for each in processes:
            each.kill()


def saved_steps(workdir: Path) -> list[int]:
    steps = (workdir / "partial" / "stage1" / "stage1").iterdir()
    return sorted(int(path.name) for path in steps if path.name.isdecimal())


@pytest.mark.slow
def test_one_of_two_stopped_then_killed_resumes_to_the_same_bytes(directory, two_processes):
    workdir = directory / "disturbed"
    assert signal_at(workdir, 1, 1, signal.SIGTERM) == [143, 143]
    [*_, stopped] = saved_steps(workdir)
    assert stopped == last_step(workdir) + 1
    on_one = shutil.copytree(workdir, directory / "on_one")

    choose = random.Random(0)  # a fixed seed, so that a failure comes again
    killed, step = choose.randrange(2), choose.randrange(10, 13)
    statuses = signal_at(workdir, killed, step, signal.SIGKILL)
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] in (75, -signal.SIGABRT)
    assert saved_steps(workdir)[-1] in (stopped, 5, 10, 15)  # a kill saves nothing

    run(workdir, TOGETHER)
    for name in files_to_compare(two_processes):
        assert (workdir / name).read_bytes() == (two_processes / name).read_bytes(), name
    assert_same_run(run(on_one, ALONE), two_processes)
