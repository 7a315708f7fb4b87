"""Steps that another run has finished, for one that would do the very same.

A fingerprint says what made a step's result, in whatever directory, so a copy of it will do.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_directory, atomic_path, remove
from paretohqd_jax.manifest import LOCK, LOGS, MANIFEST, read_manifest


def check_finished(source: Path, workdir: Path) -> None:
    """Raises InputError where no other run than that in `workdir` has finished a step."""
    if not (source / MANIFEST).is_file():
        raise InputError(
            f"--begin_with={source}: no run has finished a step there; give the --workdir of one"
        )
    if workdir.exists() and source.samefile(workdir):
        raise InputError(
            f"--begin_with={source}: is the --workdir itself, where finished steps are skipped as "
            "it is; leave it out"
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
    with _at_rest(source):
        record = read_manifest(source).get(name)
        if record is None or record["fingerprint"] != fingerprint or not (source / path).exists():
            return None
        _copy(source / path, made)
        if (source / LOGS / name).exists():
            _copy(source / LOGS / name, workdir / LOGS / name)
        return record


@contextlib.contextmanager
def _at_rest(source: Path) -> Iterator[None]:
    """Keeps runs out of a run directory, which may be one that only others can write to."""
    try:
        lock = open(source / LOCK)  # noqa: SIM115 (until the block ends)
    except FileNotFoundError:  # a copy without hidden files, where nobody is running
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--begin_with={source}: another process is running there; wait for it"
            ) from error
        yield


def _copy(source: Path, to: Path) -> None:
    """Replaces `to` when the copy is whole: a step may have checkpoints there to go on from."""
    if source.is_dir():
        with atomic_directory(to) as copying:
            shutil.copytree(source, copying, dirs_exist_ok=True)
            remove(to)
    else:
        with atomic_path(to) as copying:
            shutil.copyfile(source, copying)
