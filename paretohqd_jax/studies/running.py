"""The runs of a study, each in a process of its own, which several processes and hosts may share.

A run is done when its points are there. Whoever works at one holds its lock, and so does the
process of the run itself: when a study is killed and its runs live on, they are waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path, remove, write_json
from paretohqd_jax.manifest import MANIFEST
from paretohqd_jax.studies.plan import PlannedRun, Study, prepared_path
from paretohqd_jax.studies.stored import points_of, read_points
from paretohqd_jax.user_functions import find_function

SECONDS_BETWEEN_LOOKS = 0.2  # at the processes of runs
SECONDS_TO_WAIT = 5.0  # between looks at the runs of others
PROGRAM = (sys.executable, "-m", "paretohqd_jax.main")
ALONE = ("--coordinator=localhost:1", "--num_processes=1", "--process_id=0")
PREPARE = "import sys; from paretohqd_jax.studies.running import prepare; prepare(*sys.argv[1:])"

logger = logging.getLogger(__name__)


@dataclass
class Active:
    """A run at work: its process, its lock, and when it began."""

    run: PlannedRun
    process: subprocess.Popen
    lock: IO[str]
    began: float


def points_path(workdir: Path, run: PlannedRun) -> Path:
    """The points of a run, once it is done."""
    return _points_path(workdir, run.label)


def _points_path(workdir: Path, label: str) -> Path:
    return workdir / "points" / f"{label}.json"


def is_done(workdir: Path, run: PlannedRun) -> bool:
    """Whether the points of a run are there, and of the same options."""
    path = points_path(workdir, run)
    return path.is_file() and read_points(path)[0].config == run.config


def prepare_all(study: Study, workdir: Path) -> None:
    """Leaves what the runs share, each once, whoever comes first.

    The process that prepares holds the lock too: where it outlives its study, it is waited for.

    Raises:
      InputError: a function fails, or another one has prepared what is there.
    """
    for name, function in study.prepare.items():
        path = prepared_path(workdir, name)
        maker = path.with_name(f"{name}.made_by")
        with locked(workdir / "locks" / f"prepare-{name}") as lock:
            if path.exists():
                made_by = maker.read_text() if maker.is_file() else function
                if made_by != function:
                    raise InputError(
                        f"{path} was made by {made_by}; give what {function} makes another name"
                    )
                continue
            logger.info("preparing %s", name)
            with atomic_path(maker) as temporary:
                temporary.write_text(function)
            command = [sys.executable, "-c", PREPARE, function, str(path)]
            done = subprocess.run(command, env=_environment(workdir), pass_fds=(lock.fileno(),))
            if done.returncode:
                raise InputError(f"preparing {name!r} by {function} failed; see above")


def prepare(function: str, path: str) -> None:
    """Calls a function with the path to leave its result at, which is there when it is whole."""
    temporary = Path(path).with_name(f".making-{Path(path).name}")
    remove(temporary)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    find_function(function, f"prepare {path}")(temporary)
    os.rename(temporary, path)


def run_all(runs: Sequence[PlannedRun], workdir: Path, num_jobs: int) -> dict[str, str]:
    """Runs what is not done yet, `num_jobs` at a time, and waits for what others are at.

    What fails is tried once: what has failed at another process meanwhile has failed for this one.

    Returns:
      What failed: the labels of runs, and why in a line. The other runs go on all the same.
    """
    left = [run for run in runs if not is_done(workdir, run)]
    earlier = {run.label: _failure(workdir, run) for run in left}
    logger.info("%d of %d runs are done", len(runs) - len(left), len(runs))
    progress = _Progress(len(left), num_jobs)
    failed: dict[str, str] = {}
    active: list[Active] = []
    told: list[str] = []
    try:
        while left or active:
            waiting = []
            unsettled = {run.label for run in (*left, *(one.run for one in active))}
            for run in left:
                if len(active) == num_jobs or run.begin_with in unsettled:
                    waiting.append(run)
                elif (lock := _try_lock(_lock_path(workdir, run))) is None:
                    waiting.append(run)
                elif is_done(workdir, run):  # by another process in the meantime
                    lock.close()
                    progress.skip()
                elif (failure := _failure(workdir, run)) != earlier[run.label] and failure:
                    lock.close()
                    progress.skip()
                    failed[run.label] = failure.reason
                else:
                    logger.info("%s: started", run.label)
                    active.append(_start(run, workdir, lock))
            left = waiting
            ended = [one for one in active if one.process.poll() is not None]
            for one in ended:
                active.remove(one)
                reason = _finish(one, workdir)
                if reason:
                    failed[one.run.label] = reason
                progress.tell(one, reason)
            if left and not active and not ended:
                labels = [run.label for run in left]
                if labels != told:
                    logger.info("waiting for runs of other processes: %s", ", ".join(labels))
                told = labels
                time.sleep(SECONDS_TO_WAIT)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for one in active:
            one.process.terminate()  # it saves what it has
        for one in active:
            one.process.wait()
    return failed


def _start(run: PlannedRun, workdir: Path, lock: IO[str]) -> Active:
    directory = workdir / "runs" / run.label
    directory.mkdir(parents=True, exist_ok=True)
    command = [*PROGRAM, *run.arguments, f"--workdir={directory}", *ALONE]
    earlier = workdir / "runs" / run.begin_with
    if run.begin_with and (earlier / MANIFEST).is_file():  # what it did before it failed will do
        command.append(f"--begin_with={earlier}")
    if run.config.get("rewards", {}).get("cache") == "":  # nobody has chosen a folder
        command.append(f"--config.rewards.cache={(workdir / 'score_store').absolute()}")
    with open(directory / "log.txt", "w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=_environment(workdir), pass_fds=(lock.fileno(),),
        )  # fmt: skip
    return Active(run, process, lock, time.monotonic())


def _finish(one: Active, workdir: Path) -> str:
    """Keeps the points of a run that has ended, or why there are none, which it returns, or ""."""
    with one.lock:
        reason = _keep_points(one, workdir)
        path = _failure_path(workdir, one.run)
        if reason:
            with atomic_path(path) as temporary:
                temporary.write_text(reason)
        else:
            path.unlink(missing_ok=True)
    return reason


def _keep_points(one: Active, workdir: Path) -> str:
    run, directory = one.run, workdir / "runs" / one.run.label
    if status := one.process.returncode:
        lines = (directory / "log.txt").read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return f"status {status}: {last.strip()}"
    try:
        write_json(points_path(workdir, run), points_of(run.name, run.seed, run.config, directory))
    except InputError as error:
        return str(error)
    return ""


class _Failure(NamedTuple):
    """That a run has failed: when, by the clock of the storage, and why."""

    at: int
    reason: str


def _failure_path(workdir: Path, run: PlannedRun) -> Path:
    return workdir / "runs" / run.label / "failed.txt"


def _failure(workdir: Path, run: PlannedRun) -> _Failure | None:
    path = _failure_path(workdir, run)
    return _Failure(path.stat().st_mtime_ns, path.read_text()) if path.is_file() else None


def _environment(workdir: Path) -> dict[str, str]:
    """Of a run: compiled programs are kept for the others, and of a node's GPUs it takes its own.

    (srun starts one process for each GPU, and tells it which.)
    """
    shared = {
        "JAX_COMPILATION_CACHE_DIR": str((workdir / "compiled").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if local := os.environ.get("SLURM_LOCALID"):
        shared["JAX_CUDA_VISIBLE_DEVICES"] = local
    return shared | dict(os.environ)


def _lock_path(workdir: Path, run: PlannedRun) -> Path:
    return workdir / "locks" / run.label


def _try_lock(path: Path) -> IO[str] | None:
    """The lock, or None where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open(path, "a")  # noqa: SIM115 (until the run has ended)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Waits for a lock and yields it; the block has it."""
    while (lock := _try_lock(path)) is None:
        time.sleep(SECONDS_TO_WAIT)
    with lock:
        yield lock


class _Progress:
    """How many runs are left, and about how long they will take."""

    def __init__(self, num_runs: int, num_jobs: int) -> None:
        self.num_runs, self.num_jobs = num_runs, num_jobs
        self.num_skipped, self.seconds = 0, []

    def skip(self) -> None:
        self.num_skipped += 1

    def tell(self, one: Active, reason: str) -> None:
        self.seconds.append(time.monotonic() - one.began)
        left = self.num_runs - self.num_skipped - len(self.seconds)
        minutes = left * sum(self.seconds) / len(self.seconds) / self.num_jobs / 60
        what = f"failed ({reason})" if reason else f"done in {self.seconds[-1]:.0f} s"
        logger.info("%s: %s; %d runs left, about %.0f min", one.run.label, what, left, minutes)
