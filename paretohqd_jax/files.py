"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def local_path(source: str) -> Path | None:
    """The absolute path of a file or directory, "~" being the home directory; None if it is none.

    The one rule for what may be a path or a name of something elsewhere.
    """
    path = os.path.abspath(os.path.expanduser(source))
    return Path(path) if source and os.path.exists(path) else None


def absolute_source(source: str) -> str:
    """A source as it is handed on: an absolute path, where others read a relative one as a name."""
    return str(local_path(source) or source)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that replaces it when the block succeeds.

    A process killed inside the block leaves `path` as it was; an exception also removes the
    temporary file. The suffix is kept, since writers such as matplotlib read the format off it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a new temporary sibling of `path` that becomes it when the block succeeds.

    `path` must not exist. Files inside reach the disk if they are written by `atomic_path`.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Deletes a file or a folder with all in it, or nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes arrays as safetensors, atomically and with the permissions of any new file."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata)
        temporary.chmod(mode)  # the library leaves its files to the owner alone


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON, atomically and with the same bytes for the same value."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")
