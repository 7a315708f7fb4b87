"""Named steps over a run directory: skip what is done, resume what was cut off.

A method is a function that calls `run.step(...)` once per step and passes the outputs of earlier
steps on to later ones. A step's fingerprint covers its name, its options and the fingerprints of
the outputs it reads, so a changed option reruns exactly the steps that depend on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json

logger = logging.getLogger(__name__)
RECORDED_PACKAGES = ("paretohqd_jax", "jax", "jaxlib", "flax", "optax", "numpy")


class StageDone(Exception):
    """Ends a run that was asked for one stage only."""


@dataclass(frozen=True)
class Output:
    """What a finished step left: a file or directory, and the fingerprint of what made it."""

    path: Path
    fingerprint: str


class Run:
    """A run directory, its manifest of finished steps, and a lock against a second process."""

    def __init__(self, workdir: Path, config: dict[str, Any], only_stage: str = "") -> None:
        """Opens `workdir`, made if need be.

        Args:
          workdir: the run directory.
          config: the resolved configuration, JSON-able; kept as `config.json`.
          only_stage: run this step alone; steps before it must be up to date.

        Raises:
          InputError: another process works in `workdir`, or its manifest is damaged.
        """
        self.workdir = workdir
        self.only_stage = only_stage
        workdir.mkdir(parents=True, exist_ok=True)
        self._lock = open(workdir / ".lock", "w")  # noqa: SIM115 (held for the life of the process)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{workdir}: another process is running there; wait for it") from error
        self._manifest_path = workdir / "manifest.json"
        self._manifest = self._read_manifest()
        write_json(workdir / "config.json", config)

    def _read_manifest(self) -> dict[str, Any]:
        if not self._manifest_path.exists():
            return {}
        try:
            return json.loads(self._manifest_path.read_text())
        except json.JSONDecodeError as error:
            raise InputError(
                f"{self._manifest_path}: not valid JSON ({error}); "
                "delete this file to run all steps again"
            ) from error

    def seconds(self) -> dict[str, float]:
        """Wall seconds each finished step took in the process that finished it."""
        return {
            name: record["seconds"]
            for name, record in self._manifest.items()
            if record["status"] == "done"
        }

    def step(
        self,
        name: str,
        path: str,
        function: Callable[..., None],
        *inputs: Output,
        also: dict[str, Any] | None = None,
        **options: Any,
    ) -> Output:
        """Runs `function(output_path, scratch_directory, *inputs, **options)` unless it is done.

        Args:
          name: of the step.
          path: of the file or directory it leaves, relative to the run directory. A file must
            appear atomically; a directory may be filled bit by bit and resumed.
          function: does the work. Shards for resuming go into the scratch directory, which is
            kept until the step ends and thrown away if its fingerprint changes.
          *inputs: outputs of earlier steps.
          also: further JSON-able facts the result depends on, not passed on: those of arguments
            bound to `function` beforehand.
          **options: JSON-able values the result depends on.

        Raises:
          InputError: only another stage may run, and this one is not up to date.
          StageDone: this was the one stage to run.
        """
        options_json = json.loads(json.dumps(options | (also or {})))
        depends_on = [given.fingerprint for given in inputs]
        key = json.dumps([name, options_json, depends_on], sort_keys=True)
        output = Output(self.workdir / path, hashlib.sha256(key.encode()).hexdigest())
        record = self._manifest.get(name, {})
        same = record.get("fingerprint") == output.fingerprint
        if same and record["status"] == "done" and output.path.exists():
            logger.info("%s: up to date, skipped", name)
        else:
            why = _reason(record, options_json, same, output.path)
            if self.only_stage not in ("", name):
                raise InputError(
                    f"--stage={self.only_stage} needs step {name}, which is not up to date "
                    f"({why}); run it first, or run without --stage"
                )
            logger.info("%s: started (%s)", name, why)
            self._execute(name, output, function, inputs, options, options_json, resume=same)
        if self.only_stage == name:
            raise StageDone(name)
        return output

    def _execute(
        self,
        name: str,
        output: Output,
        function: Callable[..., None],
        inputs: tuple[Output, ...],
        options: dict[str, Any],
        options_json: dict[str, Any],
        resume: bool,
    ) -> None:
        scratch = self.workdir / "partial" / name
        if not resume:
            for stale in (scratch, output.path):
                _remove(stale)
        record = {"fingerprint": output.fingerprint, "options": options_json, "status": "running"}
        self._record(name, record)
        start = time.monotonic()
        output.path.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        function(output.path, scratch, *inputs, **options)
        seconds = round(time.monotonic() - start, 3)
        versions = {package: importlib.metadata.version(package) for package in RECORDED_PACKAGES}
        self._record(name, record | {"status": "done", "seconds": seconds, "versions": versions})
        _remove(scratch)
        logger.info("%s: done in %.1f s", name, seconds)

    def _record(self, name: str, record: dict[str, Any]) -> None:
        self._manifest[name] = record
        write_json(self._manifest_path, self._manifest)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reason(record: dict[str, Any], options: dict[str, Any], same: bool, path: Path) -> str:
    """Why a step has to run, in words."""
    if not record:
        return "not run yet"
    if same:
        return "cut off before" if record["status"] == "running" else f"{path} is gone"
    old, new = _flat(record["options"]), _flat(options)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    changes = (f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
    return "; ".join(changes) or "a step before it changed"


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in options.items():
        nested = isinstance(value, dict)
        flat.update(_flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def source_digest(source: str) -> str:
    """Identifies a local file by its bytes and a directory by its file names and sizes.

    Names that are no local path (a hub name, an embedded data set) stand for themselves.
    """
    path = Path(source)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        listing = [(entry.name, entry.stat().st_size) for entry in os.scandir(path)]
        return hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest()
    return source
