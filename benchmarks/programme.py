"""What `device.py` measures, in order of worth: jobs that have a process and the device each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import budget
from measurements import (
    Lines,
    decode,
    forward,
    pareto_cases,
    peaks,
    peft,
    scored,
    select,
    tests,
    toy_run,
    train,
    transformers,
)
from sizes import SIZES

PARTS = {
    "peaks": "what the chip does",
    "a": "it runs: tests and a whole run",
    "b": "training",
    "c": "decoding",
    "d": "scoring",
    "e": "Pareto",
    "f": "the whole task",
    "g": "longest kernels of b and c",
}
# Beside torch, or another process, JAX takes no more memory than it needs.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Job(NamedTuple):
    """Something to measure."""

    part: str
    name: str
    run: Callable[[], Lines]  # figures, the moment they are known
    seconds: int  # that it should take, the start of its process included
    environment: dict[str, str] = {}
    profiled: bool = False  # part g too
    patience: int = 2  # times as long and it is ended


def jobs(shape: str) -> list[Job]:
    """All jobs, the most wanted first; a call that is cut short has done those."""
    sizes = SIZES[shape]
    one, some, all_of_them = sizes.stacks
    few, *many = sizes.prompts
    batch = sizes.batches[1]
    found = [
        # The first to read the libraries from the machine's disk.
        Job("peaks", "peaks", partial(peaks, shape), 25, patience=4),
        Job("b", f"{some} adapters, full", partial(train, shape, some, profiled=True), 90,
            profiled=True),
        Job("c", f"3 x {few} rows", partial(decode, shape, few, profiled=True), 80, profiled=True),
        Job("b", "PEFT, one adapter", partial(peft, shape), 50, SHARED),
        Job("c", f"transformers, {3 * few} rows", partial(transformers, shape), 50, SHARED),
        Job("b", "one adapter, full", partial(train, shape, one), 50),
        Job("d", "ours", partial(scored, shape, 0), 60),
        Job("d", f"transformers, batch {batch}", partial(scored, shape, batch), 40, SHARED),
        Job("d", "transformers, batch 1", partial(scored, shape, 1), 30, SHARED),
        Job("f", "forward pass, ours", partial(forward, shape, budget.forward), 30),
        Job("f", "selection", partial(select, shape), 20),
        Job("e", "Pareto", partial(pareto_cases, shape), 100),
        Job("b", f"{all_of_them} adapters in two microbatches, full",
            partial(train, shape, all_of_them, microbatches=2), 90),
        Job("a", "toy run", toy_run, 60, SHARED),
        *(Job("a", path, partial(tests, path), 60, SHARED) for path in sizes.tests),
    ]  # fmt: skip
    if shape == "toy":
        return [job._replace(seconds=5, patience=200) for job in found]
    fewer_rows = sizes.rows // some
    in_graphs = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"}
    return [
        *found,
        Job("b", f"{some} adapters, full, cudnn", partial(train, shape, some, attention="cudnn"),
            70),
        *(Job("c", f"3 x {rows} rows", partial(decode, shape, rows), 70) for rows in many),
        Job("b", "one adapter, none", partial(train, shape, one, remat="none"), 50),
        Job("b", "one adapter, dots", partial(train, shape, one, remat="dots"), 50),
        Job("b", f"{some} adapters of {fewer_rows} rows each, full",
            partial(train, shape, some, rows=fewer_rows), 60),
        Job("b", "PEFT, one adapter, none", partial(peft, shape, remat="none"), 40, SHARED),
        Job("f", "forward pass, transformers", partial(forward, shape, budget.torch_forward), 40,
            SHARED),
        Job("c", f"3 x {few} rows, loops as command buffers", partial(decode, shape, few), 70,
            in_graphs),
    ]  # fmt: skip
