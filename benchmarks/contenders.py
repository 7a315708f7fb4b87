"""Contenders of a benchmark, each in a process of its own, and the table they fill.

A contender is a function `make(options) -> step`; `step()` does one round of work, waits until it
is done and returns something that all contenders of a benchmark should agree on. A process each
keeps their threads, their allocators and their peak memory apart. All of them take turns: at each,
but the first, two rounds of which the second is timed. With `alone` each has the machine (one
accelerator holds one of them) to itself, and times every round. Every turn is told on stderr as it
ends, so that one who cuts a long benchmark off keeps what it has found.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
import traceback
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

Make = Callable[[Namespace], Callable[[], Any]]
PACKAGES = ("jax", "flax", "torch", "transformers", "peft")


class Measurement(NamedTuple):
    """Seconds of the first round (it compiles), of the later ones, bytes at the peak, a result."""

    first: float
    seconds: list[float]
    memory: int
    result: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(
    contenders: Mapping[str, Make], options: Namespace, *, rounds: int, alone: bool = False
) -> dict[str, Measurement | str]:
    """Measures every contender; one whose library is missing or that fails leaves its reason."""
    groups = [[name] for name in contenders] if alone else [list(contenders)]
    results: dict[str, Measurement | str] = {}
    for group in groups:
        with ExitStack() as stack:
            makes = {name: contenders[name] for name in group}
            started = {n: stack.enter_context(_started(m, options)) for n, m in makes.items()}
            turns = {name: [_turn(name, started[name], False)] for name in group}
            for _ in range(rounds):
                for name in group:
                    if not isinstance(turns[name][0], str):
                        turns[name].append(_turn(name, started[name], not alone))
            results |= {name: _measurement(turns[name]) for name in group}
    return results


def measure_here(make: Make, options: Namespace, rounds: int) -> tuple[Measurement, Any]:
    """A contender that has this process and the device to itself, and its step."""

    def timed() -> tuple[float, Any]:
        start = time.perf_counter()
        result = step()
        return time.perf_counter() - start, result

    step = make(options)
    forget_peak_memory()
    first, result = timed()
    seconds = [timed()[0] for _ in range(rounds)]
    return Measurement(first, seconds, peak_memory(), result), step


def _measurement(turns: list[tuple[float, int, Any] | str]) -> Measurement | str:
    failures = [turn for turn in turns if isinstance(turn, str)]
    if failures:
        return failures[0]
    seconds, memory, results = zip(*turns, strict=True)
    return Measurement(seconds[0], list(seconds[1:]), max(memory), results[0])


@contextmanager
def _started(make: Make, options: Namespace):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, options), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # the process ends when nobody listens
        process.join()


def _turn(name: str, connection, after_others: bool) -> tuple[float, int, Any] | str:
    try:
        connection.send(after_others)
        turn = connection.recv()
    except (EOFError, OSError):
        turn = "the process died (out of memory?)"
    print(f"{name}: {turn if isinstance(turn, str) else f'{turn[0]:.2f} s'}", file=sys.stderr)
    return turn


def _serve(connection, make: Make, options: Namespace) -> None:
    """One contender's process: makes its step at the first turn and times it at every one."""
    pin(options.threads)
    clock = time.process_time if getattr(options, "processor_time", False) else time.perf_counter
    step = None
    while True:
        try:
            after_others = connection.recv()
        except EOFError:
            return
        try:
            if step is None:
                step = make(options)
                forget_peak_memory()
            elif after_others:
                step()  # so that a timed round follows one of its own
            start = clock()
            result = step()
            connection.send((clock() - start, peak_memory(), result))
        except ImportError as error:
            connection.send(f"{error.name} is not installed")
        except Exception as error:
            traceback.print_exc()
            connection.send(f"{type(error).__name__}: {str(error).splitlines()[0][:80]}")


def begin(options: Namespace, packages: Sequence[str] = PACKAGES) -> None:
    """Keeps to the cores asked for, and prints where this benchmark runs."""
    pin(options.threads)
    print(environment(options.threads, packages))


def pin(threads: int) -> None:
    """Keeps this process, before it starts a thread pool, to its first `threads` cores."""
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["OMP_NUM_THREADS"] = str(threads)


def forget_peak_memory() -> None:
    """What making the random weights took is nobody's merit or fault (JAX's allocator of an
    accelerator cannot forget it, nor can a host that is not Linux)."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):  # not every sandbox has it
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Most bytes held since: by the accelerator's allocator if there is one, else resident."""
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if jax and (statistics_of_device := jax.local_devices()[0].memory_stats()):
        return statistics_of_device["peak_bytes_in_use"]
    if sys.platform == "linux":  # the high-water mark that can be reset
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def count(text: str) -> int:
    """The value of an option that is a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def environment(threads: int, packages: Sequence[str]) -> str:
    """One line: versions, device, threads, load."""

    def version(name: str) -> str:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            return f"{name} not installed"

    flags = os.environ.get("XLA_FLAGS")
    return (
        f"Python {platform.python_version()}, {', '.join(version(name) for name in packages)}; "
        f"{threads or 'all'} of {os.cpu_count()} cores, load average at the start "
        f"{os.getloadavg()[0]:.1f}" + (f"; XLA_FLAGS={flags}" if flags else "") + "."
    )
