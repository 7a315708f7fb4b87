"""Scores that are kept, by what gave them and for which text, for all runs that share the store.

    STORE/SCORER/scorer.json           what gave the scores: for people, nothing reads it
    STORE/SCORER/TIME-MARK.safetensors scores of some texts, each by a digest of prompt and response

SCORER is a digest of what scores depend on besides the text (see `identity`). Files are only added,
whole and each under a name of its own, so any number of processes, hosts and runs may share a store
without locks. A file that is damaged, or was made for another scorer, is set aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paretohqd_jax.distributed import is_main_process, on_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json, write_tensors

DESCRIPTION = "scorer.json"
FORMAT = 1  # of the files; those of another format lie in folders of other names
SECONDS_BETWEEN_FILES = 5.0
DIGEST_BYTES = 16  # two of 2^40 texts are alike with a probability of 2^-49

logger = logging.getLogger(__name__)


class Folder(NamedTuple):
    """Where the scores of one scorer are, and what its `scorer.json` says."""

    path: Path
    description: dict[str, Any]


class Scores:
    """The scores of some texts by some scorers: what is kept of them, and what is added.

    All processes of a job make it and add to it alike; the first alone reads and writes files.

    Attributes:
      rewards: float32 `[num_texts, num_scorers]`, NaN where there is no score yet.
      is_cut: bool, of the same shape: the scorer could not read the text to its end.
    """

    def __init__(
        self, folders: Sequence[Folder | None], prompts: Sequence[str], responses: Sequence[str]
    ) -> None:
        """Reads what is kept.

        Args:
          folders: `[num_scorers]`; None for one whose scores are not kept. Of no importance in
            processes but the first.
          prompts: `[num_texts]`.
          responses: `[num_texts]`, one to each.
        """
        self._folders = folders
        self._digests = [_digest(*text) for text in zip(prompts, responses, strict=True)]
        found = on_main_process(lambda: [_read_folder(each, self._digests) for each in folders])
        shape = (len(folders), len(prompts))
        self.rewards = np.array([rewards for rewards, _ in found], np.float32).reshape(shape).T
        self.is_cut = np.array([is_cut for _, is_cut in found], bool).reshape(shape).T
        self._new: list[list[int]] = [[] for _ in folders]
        self._written = time.monotonic()

    def add(
        self, scorer: int, texts: Sequence[int], rewards: Sequence[float], is_cut: Sequence[bool]
    ) -> None:
        """Takes scores in, and every few seconds leaves in the store what is new."""
        self.rewards[texts, scorer] = rewards
        self.is_cut[texts, scorer] = is_cut
        self._new[scorer] += texts
        if time.monotonic() - self._written > SECONDS_BETWEEN_FILES:
            self.write()

    def write(self) -> None:
        """Leaves in the store what is new."""
        if is_main_process():
            for scorer, (folder, texts) in enumerate(zip(self._folders, self._new, strict=True)):
                if folder is not None and texts:
                    digests = [self._digests[text] for text in texts]
                    columns = (self.rewards[texts, scorer], self.is_cut[texts, scorer])
                    _write_file(folder, digests, *columns)
        self._new = [[] for _ in self._folders]
        self._written = time.monotonic()


def folder_of(store: Path, name: str, identity: dict[str, Any] | None) -> Folder | None:
    """The folder of a scorer, which need not be there yet; None for one without identity.

    `name` is what the first who uses it calls the scorer.
    """
    if identity is None:
        return None
    identity = identity | {"format": FORMAT}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return Folder(store / digest, {"name": name} | identity)


def check_store(store: Path) -> None:
    """Raises InputError unless files can be added to the store; for a command before its work.

    Nothing is left there: the store need not exist yet.
    """
    nearest = next(folder for folder in (store, *store.parents) if os.path.lexists(folder))
    trial = nearest / f".tmp-{secrets.token_hex(8)}"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"{store}: no scores can be kept there ({error.strerror}); give another folder"
        ) from error


def _digest(prompt: str, response: str) -> bytes:
    return hashlib.sha256(json.dumps([prompt, response]).encode()).digest()[:DIGEST_BYTES]


def _read_folder(folder: Folder | None, digests: Sequence[bytes]) -> tuple[list[float], list[bool]]:
    """For each text its score, or NaN, and whether it was cut; of several scores the first kept."""
    rewards, is_cut = [float("nan")] * len(digests), [False] * len(digests)
    if folder is None:
        return rewards, is_cut
    wanted = {digest: text for text, digest in enumerate(digests)}
    for path in sorted(folder.path.glob("[!.]*.safetensors")):  # others are being written
        for digest, reward, cut in _read_file(path):
            text = wanted.pop(digest, None)
            if text is not None:
                rewards[text], is_cut[text] = reward, cut
    return rewards, is_cut


def _read_file(path: Path) -> list[tuple[bytes, float, bool]]:
    """The scores in a file; none of a damaged one, which is set aside."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            columns = [file.get_tensor(name) for name in ("digests", "rewards", "is_cut")]
        _check(path, metadata, columns)
    except FileNotFoundError:  # another process has set it aside
        return []
    except (SafetensorError, ValueError) as error:
        reason = f"damaged ({error})" if isinstance(error, SafetensorError) else error
        aside = path.with_suffix(".damaged")
        with contextlib.suppress(OSError):
            path.rename(aside)
        logger.warning(
            "%s: %s; it is set aside as %s, and its texts are scored again",
            path, reason, aside.name,
        )  # fmt: skip
        return []
    digests, rewards, is_cut = columns
    return list(zip(map(bytes, digests), rewards.tolist(), is_cut.tolist(), strict=True))


def _check(path: Path, metadata: dict[str, str], columns: Sequence[np.ndarray]) -> None:
    """Raises ValueError for a file that is not what was written, or not for its folder."""
    if metadata.get("sha256") != _checksum(columns):
        raise ValueError("damaged, its checksum is another")
    if metadata.get("scorer") != path.parent.name:
        raise ValueError(f"of another scorer, {metadata.get('scorer')}")


def _write_file(
    folder: Folder, digests: Sequence[bytes], rewards: np.ndarray, is_cut: np.ndarray
) -> None:
    description = folder.path / DESCRIPTION
    if not description.exists():
        mark = secrets.token_hex(8)
        write_json(folder.path / f".{mark}.json", folder.description)
        (folder.path / f".{mark}.json").replace(description)
    digest_rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
    columns = {"digests": digest_rows, "rewards": rewards, "is_cut": is_cut}
    metadata = {"scorer": folder.path.name, "sha256": _checksum(list(columns.values()))}
    # Names sort by time, so the first score of a text stays the one that counts.
    name = f"{time.time_ns():020}-{secrets.token_hex(8)}.safetensors"
    write_tensors(folder.path / name, columns, metadata)


def _checksum(columns: Sequence[np.ndarray]) -> str:
    """Of the digests, rewards and flags of a file."""
    content = hashlib.sha256()
    for column in columns:
        content.update(f"{column.dtype} {column.shape} ".encode())
        content.update(np.ascontiguousarray(column))
    return content.hexdigest()
