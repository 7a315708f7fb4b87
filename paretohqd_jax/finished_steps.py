"""Steps that another run has finished, for one that would do the very same.

A fingerprint says what made a step's result, in whatever directory, so a copy of it will do.
"""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import remove
from paretohqd_jax.manifest import MANIFEST, read_manifest

LOGS = "logs"  # of training steps, in the run directory, by their names


def check_finished(workdir: Path) -> None:
    """Raises InputError where no run has finished a step."""
    if not (workdir / MANIFEST).is_file():
        raise InputError(
            f"--begin_with={workdir}: no run has finished a step there; give the --workdir of one"
        )


def copy_step(
    source: Path, workdir: Path, name: str, fingerprint: str, path: Path, made: Path
) -> dict[str, Any] | None:
    """Copies what a step left in the run directory `source`, if that is the same.

    Args:
      source: the run directory to copy from.
      workdir: the one to copy to, for the step's log of training.
      name: of the step.
      fingerprint: that it must have.
      path: of what it left, relative to the run directory.
      made: where the copy goes.

    Returns:
      The step's record, or None where it is not done or not the same.

    Raises:
      InputError: another process is running there.
    """
    with open(source / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--begin_with={source}: another process is running there; wait for it"
            ) from error
        record = read_manifest(source).get(name)
        if record is None or record["fingerprint"] != fingerprint or not (source / path).exists():
            return None
        _copy(source / path, made)
        if (source / LOGS / name).exists():
            _copy(source / LOGS / name, workdir / LOGS / name)
        return record


def _copy(source: Path, to: Path) -> None:
    remove(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, to)
    else:
        shutil.copyfile(source, to)
