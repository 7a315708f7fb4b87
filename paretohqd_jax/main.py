"""The command line: runs from a config file, and the utilities alone on files.

python -m paretohqd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
paretohqd select scores.parquet --objectives helpful,harmless -k 100 --out selection.parquet
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from paretohqd_jax.commands import COMMANDS
from paretohqd_jax.commands import run as run_command
from paretohqd_jax.errors import InputError

UNUSABLE = {
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS
}  # fmt: skip
DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


def main(argv: Sequence[str]) -> None:
    """Parses the flags of a run and runs its method."""
    config, workdir, stage = parse_flags(argv)

    from paretohqd_jax.config import check_config
    from paretohqd_jax.methods import paretohqd
    from paretohqd_jax.pipeline import Run, StageDone

    methods = {"paretohqd": paretohqd}
    if config.method not in methods:
        raise InputError(f"config.method={config.method!r}: use one of {', '.join(methods)}")
    method = methods[config.method]
    check_config(config)
    method.check(config)
    if stage not in ("", *method.STEPS):
        raise InputError(f"--stage={stage!r} does not exist; use one of {', '.join(method.STEPS)}")
    run = Run(Path(workdir), config.to_dict(), stage)
    try:
        report = method.align(config, run)
    except StageDone:
        return
    print(f"report: {report.path / 'report.html'}")


def parse_flags(argv: Sequence[str]) -> tuple[ConfigDict, str, str]:
    """The configuration with its overrides, the run directory, and the one stage to run or "".

    Raises:
      InputError: a flag is unknown or missing, its value does not fit, or the file cannot be read.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config",
        help_string="A file of configs/; change options with --config.select.k=50.",
        flag_values=values,
        sys_argv=list(argv),
    )
    workdir = flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
    stage = flags.DEFINE_string(
        "stage", "", "Run this step alone; those before it must be done.", flag_values=values
    )
    try:
        rest = values(list(argv))
        parsed = config.value, workdir.value, stage.value
        if config.value is not None:
            config.value.items()  # a file that failed to load raises here, not when it is parsed
    except Exception as error:  # the config file is the user's code and may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"{type(error).__name__}: {lines[-1] if lines else ''}") from error
    if len(rest) > 1:
        raise InputError(
            f"unknown argument {rest[1]!r}; options look like --config.select.k=50, commands on "
            f"files are {', '.join(COMMANDS)}"
        )
    for name, value in (("config", parsed[0]), ("workdir", parsed[1])):
        if not value:
            raise InputError(f"--{name} is missing; see the README for an example")
    if not isinstance(parsed[0], ConfigDict):
        raise InputError("get_config() must return a ConfigDict, best that of default_config()")
    return parsed


def console(argv: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake ends in one line and exit status 2, without a traceback."""
    argv = sys.argv if argv is None else argv
    _log_to_stderr()
    sys.path.insert(0, "")  # as `python -m` does: package.module:function of the current directory
    try:
        if len(argv) < 2 or argv[1] in ("-h", "--help"):
            print(f"{__doc__}\nCommands on files: {', '.join(COMMANDS)}; each has --help.")
        elif argv[1] in COMMANDS:
            run_command(argv[1:])
        else:
            main(argv)
    except InputError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted; the same command resumes", status=130))
    except Exception as error:
        if any(reason in str(error) for reason in DISK_FULL):  # storage libraries wrap OSError
            sys.exit(_complain("the disk is full; free some space, the same command resumes"))
        if isinstance(error, OSError) and error.filename and error.errno in UNUSABLE:
            sys.exit(_complain(f"{error.filename}: {error.strerror}; give another path"))
        raise


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("paretohqd_jax")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for library in ("absl", "asyncio"):  # Orbax's: what goes wrong there is raised as well
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _complain(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    console()
