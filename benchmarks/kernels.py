"""Which kernels a round of work spends its time in, by JAX's profiler."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def longest_kernels(step: Callable[[], Any], count: int = 20) -> dict[str, Any]:
    """The `count` kernels that take most of a round of `step`, which has run before.

    Returns:
      seconds of all kernels, and a list of name, seconds and number of calls, longest first.
    """
    import jax

    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            step()
        [path] = Path(directory).rglob("*.xplane.pb")
        planes = [*jax.profiler.ProfileData.from_file(str(path)).planes]
    seconds: Counter = Counter()
    calls: Counter = Counter()
    for name, nanoseconds in _kernels(planes):
        seconds[name] += nanoseconds / 1e9
        calls[name] += 1
    return {
        "all": sum(seconds.values()),
        "longest": [[name, time, calls[name]] for name, time in seconds.most_common(count)],
    }


def _kernels(planes: list[Any]) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of everything that ran: of a GPU's streams, a TPU's operations, or
    whatever operations a CPU's threads name."""
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    on_devices = [line for plane in devices for line in plane.lines]
    for start in ("Stream", "XLA Ops"):
        if lines := [line for line in on_devices if line.name.startswith(start)]:
            for line in lines:
                yield from ((event.name, event.duration_ns) for event in line.events)
            return
    for event in (event for plane in planes for line in plane.lines for event in line.events):
        whole = event.name.startswith(("while", "cond", "call"))  # of others
        if not whole and any(key == "hlo_op" for key, _ in event.stats):
            yield event.name, event.duration_ns
