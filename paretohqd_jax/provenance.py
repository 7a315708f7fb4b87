"""What made a result: version, commit, day and command."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

FILE = "made_by.json"  # of a run directory
PACKAGE = "paretohqd_jax"
ELSEWHERE = (  # say where and which part, not what
    "--workdir", "--stage", "--begin_with", "--config.rewards.cache"
)  # fmt: skip


def made_by(command: str, day: str) -> dict[str, str]:
    """What a report or a comparison says of itself."""
    return {"paretohqd_jax": version_and_commit(), "date": day, "command": command}


def day_begun(workdir: Path) -> str:
    """The day that the run in `workdir` began, as `FILE` there says, or today, as 2026-01-31.

    So a run that is resumed another day leaves the same report.
    """
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return datetime.date.fromisoformat(
            json.loads((workdir / FILE).read_text())["date"]
        ).isoformat()
    return datetime.date.today().isoformat()


def version_and_commit() -> str:
    """The version of this package, with the commit where it is known: "0.1.0 (commit 1a2b...)"."""
    version = importlib.metadata.version(PACKAGE)
    commit = _commit_of_checkout(Path(__file__).parents[1]) or _commit_installed()
    return f"{version} (commit {commit})" if commit else version


def command_of_run(arguments: Sequence[str]) -> str:
    """The command of a run, the same wherever it runs and however often it is resumed.

    Args:
      arguments: after the program's name, those of the job (`--coordinator`) left out.
    """
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in ELSEWHERE:
            kept.append(argument)
        skip = not skip and argument in ELSEWHERE  # its value is the next word
    return shlex.join(["paretohqd", *kept, "--workdir=DIR"])


def _commit_of_checkout(directory: Path) -> str:
    """With "-dirty" where files have changed since; "" if the directory is no checkout."""
    if not (directory / ".git").exists():
        return ""
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=12",
               "--exclude=*"]  # fmt: skip
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def _commit_installed() -> str:
    """That pip recorded when it installed from a repository."""
    record = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}"
    return json.loads(record).get("vcs_info", {}).get("commit_id", "")[:12]
