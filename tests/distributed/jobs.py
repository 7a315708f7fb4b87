"""Jobs to be tested: of threads that meet, and of real processes on simulated CPU devices."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from paretohqd_jax.distributed.joining import join

SECONDS = 60.0  # far more than threads that meet need
ROOT = Path(__file__).parents[2]
SECONDS_TO_RUN = 300  # far more than any needs, far fewer than a process waits here for its end
# Runs the code in the place of a method, inside of the real command's handling of errors. The
# processes join when all have imported what they need, so that no machine is too slow for that.
PROGRAM = """
import os, pathlib, signal, sys, time
from paretohqd_jax import distributed, main
from paretohqd_jax.distributed import processes
from paretohqd_jax.errors import InputError

processes.SECONDS_TO_END = 60.0

def run(argv):
    meeting, num_processes = pathlib.Path(os.environ["MEETING"]), int(os.environ["NUM_STARTED"])
    (meeting / str(os.getpid())).touch()
    while len(list(meeting.iterdir())) < num_processes:
        time.sleep(0.01)
    exec(sys.argv[2])
    main.join_job(argv)
    exec(sys.argv[1], globals() | {"me": distributed.process_id()})

main.main = run
main.console(["paretohqd", *sys.argv[3:]])
"""


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
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    with tempfile.TemporaryDirectory() as meeting:
        environment |= {"MEETING": meeting, "NUM_STARTED": str(len(started))}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, code, before,
                 f"--coordinator=localhost:{port}", f"--num_processes={num_processes}",
                 f"--process_id={process}", *flags],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True,
            )
            for process in started
        ]  # fmt: skip
        try:
            outputs = [process.communicate(timeout=SECONDS_TO_RUN) for process in processes]
        finally:
            for process in processes:
                process.kill()
    return [
        Ended(process.returncode, out, [line for line in err.splitlines() if line[:7] == "error: "])
        for process, (out, err) in zip(processes, outputs, strict=True)
    ]


def join_all(port: int, *members: tuple[int, int], timeout: float = SECONDS) -> list:
    """Joins (num_processes, process_id) pairs at once: for each the channel or the error."""
    with ThreadPoolExecutor(len(members)) as pool:
        calls = [pool.submit(join, f"localhost:{port}", *pair, timeout) for pair in members]
    return [call.exception() or call.result() for call in calls]
