"""Stand-ins for the programs that the launch scripts call, and runs of the scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import LAUNCH

Script = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def programs(tmp_path):
    """Puts a program ahead of all others on the PATH: a line of shell or, from #!, a script."""
    directory = tmp_path / "programs"
    directory.mkdir()

    def add(name: str, code: str) -> Path:
        program = directory / name
        program.write_text(code if code.startswith("#!") else f"#!/bin/bash\n{code}\n")
        program.chmod(0o755)
        return program

    return add


@pytest.fixture
def launch(tmp_path, programs) -> Script:
    """Runs a script of a committed launch/ from an empty folder; clouds are stand-ins at best."""
    for name in ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "sudo"):
        programs(name, f'echo "{name} was called" >&2; exit 99')
    (tmp_path / "here").mkdir()
    checkout = tmp_path / "checkout"
    shutil.copytree(LAUNCH, checkout / "launch")
    path = f"{tmp_path / 'programs'}:{os.environ['PATH']}"
    minimal = {"PATH": path, "HOME": str(tmp_path)}
    git = ["git", "-C", checkout, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "launch"]):
        subprocess.run([*git, *command], env=minimal, check=True)

    def run(script: str, *arguments: str, **environment: str):
        return subprocess.run(
            [checkout / "launch" / script, *arguments],
            env=minimal | environment, cwd=tmp_path / "here", timeout=300,
            capture_output=True, text=True,
        )  # fmt: skip

    yield run
    assert not list(tmp_path.rglob("owned")), "a value was run as a command"


@pytest.fixture
def recorder(programs, tmp_path):
    """Makes a program note the words it was called with; returns a function that reads them."""

    def add(name: str, then: str = "") -> Callable[[], list[list[str]]]:
        notes = tmp_path / f"{name}.calls"
        programs(
            name,
            f"#!{sys.executable}\nimport json, os, subprocess, sys\n"
            f"with open({str(notes)!r}, 'a') as file:\n"
            "    print(json.dumps(sys.argv[1:]), file=file)\n" + then,
        )

        def calls() -> list[list[str]]:
            lines = notes.read_text().splitlines() if notes.exists() else []
            return [json.loads(line) for line in lines]

        return calls

    return add
