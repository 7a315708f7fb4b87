"""Named steps over a run directory: skip what is done, resume what was cut off.

A method is a function that calls `run.step(...)` once per step and passes the outputs of earlier
steps on to later ones. A step's fingerprint covers its name, its options and the fingerprints of
the outputs it reads, so a changed option reruns exactly the steps that depend on it. A step works
in a folder of its own below `partial/`; what it leaves is moved into place when it is whole, so a
step that is cut off or fails damages nothing. A run may begin with another's finished steps, as far
as the fingerprints are the same.

Of several processes, the first decides what is done and writes; all see the same run directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from paretohqd_jax import provenance
from paretohqd_jax.distributed import (
    barrier,
    check_preemption,
    is_alone,
    is_main_process,
    on_main_process,
    process_id,
)
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import local_path, remove, write_json
from paretohqd_jax.finished_steps import copy_step
from paretohqd_jax.manifest import LOCK, read_manifest, versions, what_changed, write_manifest

logger = logging.getLogger(__name__)
SECONDS_TO_APPEAR = 60.0  # that a file of one host may take to be seen by the others
SECONDS_TO_UNLOCK = 120.0  # that a file server may keep the lock of a host that was lost


class StageDone(Exception):
    """Ends a run that was asked for one stage only."""


@dataclass(frozen=True)
class Output:
    """What a finished step left.

    Attributes:
      path: of the file or directory.
      fingerprint: of what made it.
      options: the step's, JSON-able.
    """

    path: Path
    fingerprint: str
    options: dict[str, Any]


class Run:
    """A run directory, its manifest of finished steps, and a lock against a second job."""

    def __init__(
        self,
        workdir: Path,
        config: dict[str, Any],
        only_stage: str = "",
        made_by: dict[str, str] | None = None,
        begin_with: Path | None = None,
    ) -> None:
        """Opens `workdir`, made if need be.

        Args:
          workdir: the run directory, on storage that all hosts share.
          config: the resolved configuration, JSON-able; kept as `config.json`.
          only_stage: run this step alone; steps before it must be up to date.
          made_by: what the report says of version, day and command; kept as `made_by.json`.
          begin_with: a run directory, of which finished steps are copied where they are the same.

        Raises:
          InputError: another job works in `workdir`, its manifest is damaged, or not all processes
            see the same directory.
        """
        self.workdir = workdir
        self.begin_with = begin_with
        self.only_stage = only_stage
        self.made_by = made_by or {}
        self._manifest: dict[str, Any] = {}  # stays empty in all processes but the first
        self._passed: list[str] = []  # names of steps, up to date or done now
        mark = on_main_process(lambda: self._open(config))
        if not is_main_process():
            _check_shared(workdir, mark)
        barrier()

    def _open(self, config: dict[str, Any]) -> str:
        """Takes the lock and reads the manifest; returns what the lock file says."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.workdir / LOCK, "a")  # noqa: SIM115 (until it is closed)
        self._take_lock(0.0 if is_alone() else SECONDS_TO_UNLOCK)
        mark = secrets.token_hex(16)
        self._lock.truncate(0)
        self._lock.write(mark)
        self._lock.flush()
        self._manifest = read_manifest(self.workdir)
        write_json(self.workdir / "config.json", config)
        write_json(self.workdir / provenance.FILE, self.made_by)
        return mark

    def close(self) -> None:
        """Lets other jobs work in the directory, this process among them."""
        if is_main_process():
            self._lock.close()

    def _take_lock(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise InputError(
                        f"{self.workdir}: another process is running there; wait for it"
                    ) from error
            check_preemption()
            time.sleep(0.5)

    def seconds(self) -> dict[str, float]:
        """Wall seconds of each step that this run has passed, in order, when it was done."""
        return {name: self._manifest[name]["seconds"] for name in self._passed}

    def step(
        self,
        name: str,
        path: str,
        function: Callable[..., dict[str, int] | None],
        *inputs: Output,
        also: dict[str, Any] | None = None,
        all_processes: bool = False,
        **options: Any,
    ) -> Output:
        """Runs `function(path, scratch, *inputs, **options)` unless it is done.

        Args:
          name: of the step.
          path: of the file or directory it leaves, relative to the run directory.
          function: does the work and leaves its result at the path it is given. That path and the
            scratch directory, for shards, are kept while the step is resumed with the same
            fingerprint. It may return what it cost, counts by name, for the manifest.
          *inputs: outputs of earlier steps.
          also: further JSON-able facts the result depends on, not passed on: those of arguments
            bound to `function` beforehand.
          all_processes: call `function` in every process, for it uses all devices, and writes
            files in the first alone; otherwise it is the first that calls it.
          **options: JSON-able values the result depends on.

        Raises:
          InputError: only another stage may run, and this one is not up to date.
          StageDone: this was the one stage to run.
          Preempted: SIGTERM was received.
        """
        check_preemption()
        output, depends_on = self._output(name, path, inputs, options | (also or {}))
        why = on_main_process(lambda: self._reason(name, output))
        if why is None:
            logger.info("%s: up to date, skipped", name)
        elif self.begin_with and on_main_process(lambda: self._copy(name, output)):
            logger.info("%s: copied from %s", name, self.begin_with)
        else:
            if self.only_stage not in ("", name):
                raise InputError(
                    f"--stage={self.only_stage} needs step {name}, which is not up to date "
                    f"({why}); run it first, or run without --stage"
                )
            logger.info("%s: started (%s)", name, why)
            start = time.monotonic()
            made, scratch = self._partial(name, output)
            on_main_process(lambda: _prepare(scratch, output))
            if all_processes:
                cost = function(made, scratch, *inputs, **options)
                barrier()
            else:
                cost = on_main_process(lambda: function(made, scratch, *inputs, **options))
            seconds = time.monotonic() - start
            record = _record(output, depends_on, seconds, cost)
            on_main_process(lambda: self._finish(name, made, output, record))
            logger.info("%s: done in %.1f s", name, seconds)
        self._passed.append(name)
        if self.only_stage == name:
            raise StageDone(name)
        return output

    def _output(
        self, name: str, path: str, inputs: Sequence[Output], options: dict[str, Any]
    ) -> tuple[Output, list[str]]:
        """What a step leaves, and the fingerprints that its own depends on."""
        told = json.loads(json.dumps(options))
        depends_on = [given.fingerprint for given in inputs]
        key = json.dumps([name, told, depends_on], sort_keys=True)
        fingerprint = hashlib.sha256(key.encode()).hexdigest()
        return Output(self.workdir / path, fingerprint, told), depends_on

    def _reason(self, name: str, output: Output) -> str | None:
        """Why a step has to run, in words, or None if it is up to date."""
        record = self._manifest.get(name, {})
        if record.get("fingerprint") == output.fingerprint and output.path.exists():
            return None
        if record.get("fingerprint") == output.fingerprint:
            return f"{output.path} is gone"
        return what_changed(record, output.options)

    def _partial(self, name: str, output: Output) -> tuple[Path, Path]:
        """Where a step leaves its result, and its shards, until it is whole."""
        partial = self.workdir / "partial" / name
        return partial / output.path.name, partial / "scratch"

    def _copy(self, name: str, output: Output) -> bool:
        """Takes a step over from the run to begin with; returns whether that has done the same."""
        made, _ = self._partial(name, output)
        relative = output.path.relative_to(self.workdir)
        record = copy_step(self.begin_with, self.workdir, name, output.fingerprint, relative, made)
        if record is not None:
            self._finish(name, made, output, record)
        return record is not None

    def _finish(self, name: str, made: Path, output: Output, record: dict[str, Any]) -> None:
        """Moves the result of a step into place and records it."""
        output.path.parent.mkdir(parents=True, exist_ok=True)
        if made.is_dir():  # a file is replaced in one go
            remove(output.path)
        os.replace(made, output.path)
        self._manifest[name] = record
        write_manifest(self.workdir, self._manifest)
        remove(made.parent)


def _record(
    output: Output, inputs: list[str], seconds: float, cost: dict[str, int] | None
) -> dict[str, Any]:
    """What the manifest says of a step that is done."""
    return {
        "fingerprint": output.fingerprint, "inputs": inputs, "options": output.options,
        "seconds": round(seconds, 3), "cost": cost or {}, "num_devices": jax.device_count(),
        "device": jax.devices()[0].device_kind, "versions": versions(),
    }  # fmt: skip


def _check_shared(workdir: Path, mark: str) -> None:
    """Waits until the lock file that process 0 wrote is seen here."""
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while time.monotonic() < deadline:
        try:
            if (workdir / LOCK).read_text() == mark:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise InputError(
        f"{workdir.absolute()} of process {process_id()} is not the run directory of process 0; "
        "give a --workdir on storage that all hosts share"
    )


def _prepare(scratch: Path, output: Output) -> None:
    """Keeps what an earlier process left of the same step, and clears away anything else."""
    mark = scratch.parent / "fingerprint"
    if not mark.exists() or mark.read_text() != output.fingerprint:
        remove(scratch.parent)
        scratch.mkdir(parents=True)
        mark.write_text(output.fingerprint)


def source_digest(source: str) -> str:
    """Identifies a local file by its bytes, a directory by its files' names, sizes and dates.

    Names that are no local path (a hub name, an embedded data set) stand for themselves.
    """
    path = local_path(source)
    if path is None:
        return source
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        stats = ((str(file.relative_to(path)), file.stat()) for file in files)
        listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        return hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest()
    return source
