"""The command line: runs from a config file, and the utilities alone on files.

    python -m paretohqd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
    paretohqd select scores.parquet --objectives helpful,harmless -k 100 --out selection.parquet
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from paretohqd_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/; change options with --config.select.k=50."
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, made if need be.")
STAGE = flags.DEFINE_string("stage", "", "Run this step alone; the ones before must be done.")


def main(argv: Sequence[str]) -> None:
    """Parses the flags of a run and runs its method."""
    _parse_flags(argv)
    config = CONFIG.value

    from paretohqd_jax.config import check_config
    from paretohqd_jax.methods.paretohqd import STEPS, paretohqd
    from paretohqd_jax.pipeline import Run, StageDone

    check_config(config)
    if STAGE.value not in ("", *STEPS):
        raise InputError(f"--stage={STAGE.value!r} does not exist; use one of {', '.join(STEPS)}")
    run = Run(Path(WORKDIR.value), config.to_dict(), STAGE.value)
    try:
        report = paretohqd(config, run)
    except StageDone:
        return
    print(f"report: {report.path / 'report.html'}")


def _parse_flags(argv: Sequence[str]) -> None:
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise InputError(f"unknown argument {rest[1]!r}; options look like --config.select.k=50")
    for name, value in (("config", CONFIG.value), ("workdir", WORKDIR.value)):
        if not value:
            raise InputError(f"--{name} is missing; see the README for an example")


def console(argv: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake ends in one line and exit status 2, without a traceback."""
    argv = sys.argv if argv is None else argv
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("paretohqd_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        from paretohqd_jax import commands

        if len(argv) > 1 and argv[1] in commands.COMMANDS:
            commands.run(argv[1:])
        else:
            main(argv)
    except InputError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted; the same command resumes", status=130))
    except Exception as error:
        # Storage libraries wrap a full disk in exceptions of their own.
        if "No space left on device" not in str(error):
            raise
        sys.exit(_complain("the disk is full; free some space, the same command resumes"))


def _complain(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    console()
