"""Jobs to be tested: of threads that meet, and of real processes on simulated CPU devices."""

from __future__ import annotations

import multiprocessing
import os
import pathlib  # noqa: F401 (this and the next for the code of tests)
import signal  # noqa: F401
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax

from paretohqd_jax import distributed, main
from paretohqd_jax.distributed import processes
from paretohqd_jax.distributed.joining import join
from paretohqd_jax.errors import InputError  # noqa: F401

SECONDS = 60.0  # far more than threads that meet need
ROOT = Path(__file__).parents[2]
SECONDS_TO_RUN = 300  # far more than any needs, far fewer than a process waits here for its end
# Processes are forked from one that has imported what takes seconds, and has touched no backend.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["paretohqd_jax.main", "paretohqd_jax.training.checkpoints"])


@dataclass
class Ended:
    """What a process left behind."""

    status: int
    out: str
    errors: list[str]  # the lines that start with "error: "


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_together(
    code: str, num_processes: int = 2, absent=(), flags=(), before: str = ""
) -> list[Ended]:
    """Runs `code` in several processes, `me` being the number of each, and waits for all.

    The code `before` runs before they join.
    """
    port, started = free_port(), [p for p in range(num_processes) if p not in absent]
    job = [f"--coordinator=localhost:{port}", f"--num_processes={num_processes}"]
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        meeting.mkdir()
        outputs = [(Path(folder) / f"{process}.out", Path(folder) / f"{process}.err")
                   for process in started]  # fmt: skip
        processes = [
            FORKED.Process(
                target=_run_member,
                args=(code, before, [*job, f"--process_id={process}", *flags], meeting,
                      len(started), *files),
            )
            for process, files in zip(started, outputs, strict=True)
        ]  # fmt: skip
        try:
            for process in processes:
                process.start()
            deadline = time.monotonic() + SECONDS_TO_RUN
            for process in processes:
                process.join(max(deadline - time.monotonic(), 0))
                assert process.exitcode is not None, "runs for too long"
        finally:
            for process in processes:
                process.kill()
        texts = [[path.read_text() for path in files] for files in outputs]
    return [
        Ended(process.exitcode, out, [line for line in err.splitlines() if line[:7] == "error: "])
        for process, (out, err) in zip(processes, texts, strict=True)
    ]


def _run_member(code, before, flags, meeting, num_started, out, err) -> None:
    """The code in the place of a method, inside of the real command's handling of errors.

    The processes join when all are here, so that no machine is too slow for that.
    """
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["paretohqd", *flags]
    jax.config.update("jax_num_cpu_devices", 2)
    processes.SECONDS_TO_END = 60.0

    def run(argv):
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < num_started:
            time.sleep(0.01)
        exec(before, dict(globals()))
        main.join_job(argv)
        exec(code, globals() | {"me": distributed.process_id()})

    main.main = run
    main.console(sys.argv)


def join_all(port: int, *members: tuple[int, int], timeout: float = SECONDS) -> list:
    """Joins (num_processes, process_id) pairs at once: for each the channel or the error."""
    with ThreadPoolExecutor(len(members)) as pool:
        calls = [pool.submit(join, f"localhost:{port}", *pair, timeout) for pair in members]
    return [call.exception() or call.result() for call in calls]
