"""Training metrics as TensorBoard events, written by the thread that trains."""

from __future__ import annotations

import math
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from paretohqd_jax.distributed import is_main_process

CONSTRAINT = "constraint/"  # begins the names of metrics that tell of constraints
Metrics = dict[str, dict[int, float]]  # by name, the value at each step

RECORD_HEAD = struct.Struct("<QI")  # of an event: its length, and the checksum of that


@contextmanager
def open_metrics(
    directory: Path, start_step: int
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Opens the events of `directory`; yields `write(step, values_by_name)`.

    Of the processes of a job only the first writes.

    Events from `start_step` on, of a process that was cut off, no longer count; a start at 0
    clears the directory. Nothing is queued for another thread, as tensorboardX's SummaryWriter
    does: its queue blocks for ever once that thread has died of a full disk.
    """
    if not is_main_process():
        yield lambda step, values: None
        return
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    if start_step == 0:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(directory / "events"))
    session = SessionLog(status=SessionLog.START)
    writer.write_event(Event(wall_time=time.time(), step=start_step, session_log=session))

    def write(step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = Summary(value=scalars)
        writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()


def by_adapter(metrics: Mapping[str, np.ndarray], adapter_names: Sequence[str]) -> dict[str, float]:
    """Metrics `[num_adapters]` by their names as METRIC/ADAPTER.

    What is not a number does not apply to its adapter, and is left out.
    """
    return {
        f"{metric}/{name}": value
        for metric, values in metrics.items()
        for name, value in zip(adapter_names, values.tolist(), strict=True)
        if not math.isnan(value)
    }


def read_metrics(directory: Path) -> Metrics:
    """What `open_metrics` wrote: for each name, the value at each step. Empty without events.

    A step that was trained again after the run was cut off counts as it was the last time.
    """
    from tensorboardX.proto.event_pb2 import Event

    values: Metrics = {}
    for path in sorted(directory.glob("events*")):
        data, start = path.read_bytes(), 0
        while start + RECORD_HEAD.size <= len(data):
            length, _ = RECORD_HEAD.unpack_from(data, start)
            start += RECORD_HEAD.size
            if start + length > len(data):  # cut off while it was written
                break
            event = Event.FromString(data[start : start + length])
            start += length + 4  # the record's checksum
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.simple_value
    return values
