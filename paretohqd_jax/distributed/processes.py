"""Who is there, who decides, and how all processes of a job end together.

Everything here works in a single process too, where it costs next to nothing. Exit statuses: 143
after SIGTERM and 75 after another process was lost or did not join (the same command resumes), 3
when the user has to do something first, 2 for a mistake of the user's, 130 after Ctrl-C, 1 for a
defect.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax

from paretohqd_jax.distributed.channel import Channel, Message
from paretohqd_jax.distributed.joining import is_loopback, join, split_address
from paretohqd_jax.errors import InputError

T = TypeVar("T")
PREEMPTED = 143  # as a shell reports SIGTERM
LOST = 75  # EX_TEMPFAIL
PAUSED = 3
SECONDS_TO_END = 5.0  # that process 0 waits for the others; JAX's service ends with it
SECONDS_TO_EXPLAIN = 1.0  # for the news of a lost process to overtake the error it causes
RESUMES = "the same command resumes"

logger = logging.getLogger(__name__)


class Preempted(BaseException):
    """SIGTERM has reached a process of this job, and all of them have come to the same point."""


class _Job:
    """What this process knows of its job; the operating system has one such state per process."""

    channel: Channel | None = None  # None in a single process
    num_polls = 0
    terminated = False  # a single process has received SIGTERM


_job = _Job()
_ending = threading.Lock()


def initialize(
    coordinator: str | None, num_processes: int | None, process_id: int | None, join_timeout: float
) -> None:
    """Joins this process to its job; to be called before anything touches a JAX backend.

    Without arguments, TPU VMs and Slurm (`srun`) tell; where they do not, this is a single process.

    Args:
      coordinator: HOST:PORT of process 0, or None for what the cluster tells.
      num_processes: of the job, likewise.
      process_id: of this process, likewise.
      join_timeout: seconds to wait for the others.

    Raises:
      InputError: the arguments do not make sense.
      NotJoined: not all processes joined in time.
    """
    local_device_ids = None
    if None in (coordinator, num_processes, process_id):
        coordinator, num_processes, process_id, local_device_ids = _ask_cluster(
            coordinator, num_processes, process_id, join_timeout
        )
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise InputError("give --coordinator, --num_processes and --process_id together, or none")
    if num_processes is not None and num_processes < 1:
        raise InputError(f"--num_processes={num_processes} is not valid; use 1 or more")
    if num_processes is None or num_processes == 1:
        signal.signal(signal.SIGTERM, _on_sigterm)
        return
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id={process_id} is not valid; {num_processes} processes count from 0"
        )
    _job.channel = join(coordinator, num_processes, process_id, join_timeout)
    _job.channel.listen(_on_end)  # before JAX waits, up to join_timeout, for one that has just died
    local = is_loopback(split_address(coordinator)[0])
    jax.distributed.initialize(
        coordinator, num_processes, process_id, local_device_ids,
        cluster_detection_method="deactivate", initialization_timeout=int(join_timeout) + 1,
        coordinator_bind_address=coordinator if local else None,  # None: all interfaces
    )  # fmt: skip


def _ask_cluster(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> tuple[str | None, int | None, int | None, Any]:
    """What is None, and the devices of this process, as JAX would find them out."""
    from jax._src.clusters import ClusterEnv  # not public; the public function gives no answer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages for clusters that nobody asked for
            return ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, num_processes, process_id, None, None, int(timeout)
            )
    except Exception as error:  # what a metadata server may say
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the cluster does not tell which processes the job has ({reason}); give "
            "--coordinator, --num_processes and --process_id"
        ) from error


def _on_sigterm(signal_number: int, frame: object) -> None:
    _job.terminated = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who sends a second one will not wait


def stop_on_sigterm() -> None:
    """Has SIGTERM raise `Preempted` at once, for commands of a single process.

    Like Ctrl-C it leaves whole files alone.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(signal_number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Preempted


def is_main_process() -> bool:
    """Whether this is process 0, which alone logs, draws progress and writes files."""
    return _job.channel is None or _job.channel.process_id == 0


def process_id() -> int:
    """The number of this process in its job."""
    return 0 if _job.channel is None else _job.channel.process_id


def is_alone() -> bool:
    """Whether the job has no other process."""
    return _job.channel is None


def describe() -> str:
    """This process, its devices and those of the job, in words."""
    return (
        f"process {jax.process_index()} of {jax.process_count()} with {jax.local_device_count()} "
        f"of {jax.device_count()} {jax.default_backend()} devices"
    )


def on_main_process(function: Callable[[], T]) -> T:
    """Calls `function` in process 0 alone and returns its JSON-able result in every process.

    All processes call this in the same order; the others wait, for hours if need be. What process
    0 raises ends the job, but for `Preempted`, which is raised in all.
    """
    channel = _job.channel
    if channel is None:
        return function()
    if channel.process_id != 0:
        message = channel.receive(0)
        _job.num_polls = message["polls"]
        if message["preempted"]:
            raise Preempted
        return message["value"]
    value, preempted = None, None
    try:
        value = function()
    except Preempted as error:
        preempted = error
    polls = _job.num_polls
    channel.send({"value": value, "preempted": preempted is not None, "polls": polls})
    if preempted is not None:
        raise preempted
    return value


def barrier() -> None:
    """Returns when every process has come here."""
    if not is_main_process():
        _job.channel.send({"here": True})
    on_main_process(_hear_from_all)


def _hear_from_all() -> None:
    if _job.channel is not None:
        for peer in _job.channel.peers:
            _job.channel.receive(peer)


def reached_preemption() -> bool:
    """Whether to save and stop now, because SIGTERM has reached one of the processes.

    The answer is the same in all processes, as long as all ask equally often; in a function that
    `on_main_process` runs, process 0 asks alone.
    """
    if _job.channel is None:
        return _job.terminated
    from jax.experimental import multihost_utils

    _job.num_polls += 1
    return multihost_utils.reached_preemption_sync_point(_job.num_polls)


def check_preemption() -> None:
    """Raises `Preempted` when it is time to stop; for loops whose finished work is on disk."""
    if reached_preemption():
        raise Preempted


def shutdown() -> None:
    """Leaves the job in good order, together with all others."""
    if _job.channel is not None:
        _job.channel.close()
        jax.distributed.shutdown()
    elif signal.getsignal(signal.SIGTERM) in (_on_sigterm, _stop):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _job.terminated = False


def fail(status: int, message: str, error: BaseException | None = None) -> NoReturn:
    """Ends this process and with it the whole job; `error` is shown with its traceback.

    Process 0 prints the message. Nobody is waited for longer than a few seconds: the others may be
    in a collective operation that can never end.
    """
    channel = _job.channel
    if channel is None:
        if error is not None:
            raise error
        _show(message, None)
        sys.exit(status)
    # _on_end may know better; and where all have the same to say, process 0 says it.
    time.sleep(SECONDS_TO_EXPLAIN if channel.process_id == 0 else 2 * SECONDS_TO_EXPLAIN)
    with _ending:
        channel.send({"ended": status, "message": message})
        if channel.process_id == 0 or error is not None:
            _show(message, error)
        if channel.process_id == 0:
            _exit(status)
    time.sleep(SECONDS_TO_END)  # in which _on_end hears that process 0 has shown it
    _show(message, None)
    _exit(status)


def _on_end(process: int, message: Message) -> None:
    """A peer has ended before its time: so does this process, wherever its main thread is."""
    with _ending:
        status = message.get("ended", LOST)
        reason = message.get("message", f"has ended without a word; {RESUMES}")
        if _job.channel.process_id == 0:
            _job.channel.send({"ended": status})
        if _job.channel.process_id == 0 or not message:
            _show(f"process {process}: {reason}", None)
        _exit(status)


def _exit(status: int) -> NoReturn:
    """Ends the process without waiting for anything but, in process 0, the others."""
    if _job.channel.process_id == 0:
        _job.channel.wait_for_ends(SECONDS_TO_END)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _show(message: str, error: BaseException | None) -> None:
    if error is not None:
        traceback.print_exception(error)
    print(f"error: {message}", file=sys.stderr, flush=True)
