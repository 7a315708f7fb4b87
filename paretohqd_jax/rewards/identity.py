"""What scores depend on besides the text: a reward model's weights and reading, a function's text.

    {"weights": ..., "adapter": ..., "reading": {...}, "backend": "jax", "dtype": "float32"}
    {"function": "my_rewards:polite", "definition": ...}

Names and places do not count where there is a content, so a copy of a model finds its scores.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretohqd_jax.files import local_path, write_json
from paretohqd_jax.models.sources import resolve_source
from paretohqd_jax.provenance import PACKAGE
from paretohqd_jax.rewards.likelihood import is_dated
from paretohqd_jax.rewards.registry import Entry, LanguageModel
from paretohqd_jax.user_functions import definition_digest

WORDS_OF_ENTRIES = ("published", "licence", "note")  # for readers
PLACES_OF_ENTRIES = ("checkpoint", "adapter")  # that digests stand for

logger = logging.getLogger(__name__)


def function_identity(name: str, function: Callable[..., Any]) -> dict[str, Any] | None:
    """Of a scorer that is a function; None if its text cannot be found, such as one of C's.

    This package's own call others of it, which its version stands for.
    """
    definition = definition_digest(function, name)
    if not definition:
        return None
    ours = {} if ":" in name else {"version": importlib.metadata.version(PACKAGE)}
    return {"function": name, "definition": definition} | ours


def model_identity(entry: Entry, backend: str, dtype: str, memory: Path) -> dict[str, Any]:
    """Of a reward model that `backend` runs; `memory` as of `content_digest`."""
    identity = {
        "weights": content_digest(entry.checkpoint, memory),
        "adapter": content_digest(entry.adapter, memory),
        "reading": reading_of(entry),
        "backend": backend,
        "dtype": dtype,
    }
    if isinstance(entry, LanguageModel) and is_dated(entry):
        identity["date"] = datetime.date.today().isoformat()
    return identity


def reading_of(entry: Entry) -> dict[str, Any]:
    """How a reward model reads texts, and which output is the reward."""
    reading = dataclasses.asdict(entry)
    for name in WORDS_OF_ENTRIES + PLACES_OF_ENTRIES:
        del reading[name]
    return reading


def content_digest(place: str, memory: Path) -> str:
    """Identifies a model by the bytes of its file, or of all files in its folder but hidden ones.

    Other names (of the hub, "random:toy") stand for themselves. Bytes are
    read once: `memory` is a folder that keeps the digest of each file, which holds for as long as
    its size, inode and times of change stay.
    """
    path = resolve_source(place) if place.startswith("package:") else local_path(place)
    if path is None:
        return place
    files = [path]
    if path.is_dir():
        found = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        files = [path / file for file in sorted(found) if not str(file).startswith(".")]
    record = memory / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    states = {str(file.relative_to(path)): _state(file) for file in files}
    known = _read_record(record)
    if {name: state for name, (state, _) in known.items()} != states:
        size = sum(file.stat().st_size for file in files) / 1e9
        logger.info("reading the %.3g GB of %s, once, to tell it from other models", size, path)
        known = {name: (states[name], _sha256(path / name)) for name in states}
        mark = record.with_suffix(f".{secrets.token_hex(8)}")
        write_json(mark, {"path": str(path), "files": known})
        mark.replace(record)
    digests = {name: digest for name, (_, digest) in known.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _state(file: Path) -> list[int]:
    """What changes with a file's bytes."""
    stat = file.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_record(path: Path) -> dict[str, tuple[list[int], str]]:
    """The state and the digest of each file of a place; nothing if there is no such record."""
    try:
        files = json.loads(path.read_text())["files"]
        return {name: (list(state), str(digest)) for name, (state, digest) in files.items()}
    except (AttributeError, OSError, ValueError, LookupError, TypeError):
        return {}
