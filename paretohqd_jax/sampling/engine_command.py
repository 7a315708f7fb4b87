"""The user's command that answers a folder of requests, run while the run waits.

It never reaches a shell. `{script}` as a word of it stands for `answer_with_vllm.py` beside the
requests and its arguments, `{folder}` for the folder with the requests.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from paretohqd_jax.distributed import check_preemption
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)
SECONDS_TO_END = 30.0  # that a command has after SIGTERM
OPTION = "config.generate.engine_command"


def check_program(command: str) -> None:
    """Raises InputError for a command whose program is not there."""
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        raise InputError(f"{OPTION}={command!r}: there is no program {program!r}; give its path")


def run_engine_command(command: str, folder: Path, script: Sequence[str]) -> None:
    """Runs the command to its end; its output goes to `folder`/engine.log.

    Args:
      command: with `{script}` or `{folder}` in it.
      folder: that the answers are to appear in, as answers.jsonl.
      script: the words that `{script}` stands for.

    Raises:
      InputError: it failed, or left no answers; the message has its last lines.
      Preempted: SIGTERM was received, and passed on to the command.
    """
    words: list[str] = []
    for word in shlex.split(command):
        words += script if word == "{script}" else [word.replace("{folder}", str(folder))]
    log = folder / "engine.log"
    logger.info("running %s; its output is in %s", shlex.join(words[:2]), log)
    status = _run(words, log)
    if status:
        reason = f"ended with status {status}"
    elif not (folder / "answers.jsonl").exists():
        reason = f"left no {folder / 'answers.jsonl'}"
    else:
        return
    raise InputError(
        f"{OPTION}={command!r}: the command {reason}; its last lines: {_last_lines(log)} (all of "
        f"them in {log}); mend that and run again, what is answered is kept"
    )


def _run(words: Sequence[str], log: Path) -> int:
    """The exit status of a command, which ends when this process is told to."""
    with open(log, "wb") as output:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:  # such as a script without a first line that names its program
            raise InputError(
                f"{OPTION}: {words[0]!r} cannot be run ({error.strerror}); give a program"
            ) from error
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)
            check_preemption()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it has started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
            return


def _last_lines(log: Path) -> str:
    lines = log.read_bytes()[-4000:].decode(errors="replace").splitlines()
    return " | ".join([line.strip() for line in lines if line.strip()][-3:])[-400:] or "none"
