"""Processes on one machine: their flags, output, ends and signals. A stand-in plays the program."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import AWKWARD, LAUNCH, shell_words

SCRIPT = LAUNCH / "local_multiprocess.sh"
SECONDS = 200.0  # far more than any script needs, fewer than the processes here wait for their end
WAIT = "time.sleep(500)"


@pytest.fixture
def stand_in(tmp_path):
    """Makes a stand-in for Python: it runs the given code, with `process` and `arguments` set."""

    def make(code: str) -> dict[str, str]:
        program = tmp_path / "program.py"
        program.write_text(
            "import os, signal, sys, time\n"
            "arguments = sys.argv[1:]\n"
            "process = int(sys.argv[-1].removeprefix('--process_id='))\n" + code
        )
        fake = tmp_path / "python"
        fake.write_text(
            f'#!/bin/sh\n[ $1 = -c ] && exec {shlex.quote(sys.executable)} "$@"\n'
            f'exec {shlex.quote(sys.executable)} -S {shlex.quote(str(program))} "$@"\n'
        )
        fake.chmod(0o755)
        return {**os.environ, "PYTHON": str(fake), "GRACE_SECONDS": "2"}

    return make


def launch(*arguments: str, env: dict[str, str], cwd: Path | None = None):
    return subprocess.run(
        [SCRIPT, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=SECONDS
    )


def test_every_process_gets_the_arguments_and_its_number(stand_in, tmp_path):
    env = stand_in(
        "print(os.environ['JAX_PLATFORMS'], os.environ['JAX_NUM_CPU_DEVICES'], arguments)"
    )
    ran = launch("3", "2", "--workdir=" + AWKWARD, env=env, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = sorted(ran.stdout.splitlines())
    port = lines[0].split("--coordinator=localhost:")[1].split("'")[0]
    assert int(port) > 1023
    for process, line in enumerate(lines):
        flags = [f"--coordinator=localhost:{port}", "--num_processes=3", f"--process_id={process}"]
        arguments = ["-m", "paretohqd_jax.main", "--workdir=" + AWKWARD, *flags]
        assert line == f"[{process}] cpu 2 {arguments}"
    assert not (tmp_path / "owned").exists()


def test_dry_run_prints_commands_that_a_shell_reads_back(stand_in, tmp_path):
    env = stand_in("print('ran')")
    ran = launch("--dry-run", "2", "4", "--workdir=" + AWKWARD, env=env, cwd=tmp_path)
    assert ran.returncode == 0 and "ran" not in ran.stdout
    assert len(ran.stdout.splitlines()) == 2
    for process, line in enumerate(ran.stdout.splitlines()):
        words = shell_words(line)
        assert words[:3] == ["env", "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=4"]
        assert "--workdir=" + AWKWARD in words
        assert words[-1] == f"--process_id={process}"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "arguments", [(), ("2",), ("0", "1"), ("2", "-1"), ("two", "1"), ("2", "1; touch owned")]
)
def test_wrong_numbers_are_refused(arguments, stand_in, tmp_path):
    ran = launch(*arguments, env=stand_in(""), cwd=tmp_path)
    assert ran.returncode != 0
    assert "usage: launch/local_multiprocess.sh" in ran.stderr
    assert not (tmp_path / "owned").exists()


def test_one_that_fails_ends_the_others(stand_in):
    env = stand_in(f"print('here'); sys.exit(7) if process == 1 else {WAIT}")
    ran = launch("3", "1", env=env)
    assert ran.returncode == 7
    assert "[1] ended with status 7" in ran.stderr


def test_one_that_is_killed_ends_the_others_that_ignore_sigterm(stand_in, tmp_path):
    ready = tmp_path / "ready"
    code = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"if process == 0: open({str(ready)!r}, 'w').close(); {WAIT}\n"
        f"while not os.path.exists({str(ready)!r}): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    start = time.monotonic()
    assert launch("2", "1", env=stand_in(code)).returncode == 128 + 9
    assert time.monotonic() - start >= 2  # GRACE_SECONDS


def test_one_that_is_done_leaves_the_others_in_peace(stand_in):
    env = stand_in("time.sleep(process); print('done')")
    ran = launch("3", "1", env=env)
    assert ran.returncode == 0
    assert sorted(ran.stdout.splitlines()) == ["[0] done", "[1] done", "[2] done"]


def test_no_process_is_missed_when_all_end_at_once(stand_in):
    for _ in range(5):
        ran = launch("6", "1", env=stand_in("print('x' * 5000)"))
        assert ran.returncode == 0
        assert len(ran.stdout.splitlines()) == 6


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(sent, stand_in):
    code = (
        "def save(*_):\n"
        "    time.sleep(process); print('saved', flush=True); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"print('ready', flush=True); {WAIT}"
    )
    env = stand_in(code) | {"GRACE_SECONDS": str(int(SECONDS))}
    script = subprocess.Popen([SCRIPT, "2", "1"], env=env, stdout=subprocess.PIPE, text=True)
    assert {script.stdout.readline() for _ in range(2)} == {"[0] ready\n", "[1] ready\n"}
    script.send_signal(sent)
    output, _ = script.communicate(timeout=SECONDS)
    assert sorted(output.splitlines()) == ["[0] saved", "[1] saved"]
    assert script.returncode == 143
