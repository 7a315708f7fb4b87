"""The command line: runs from a config file, and the utilities alone on files.

python -m paretohqd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
paretohqd select scores.parquet --objectives helpful,harmless -k 100 --out selection.parquet
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from paretohqd_jax import distributed
from paretohqd_jax.commands import COMMANDS, summaries
from paretohqd_jax.commands import run as run_command
from paretohqd_jax.config import options_of
from paretohqd_jax.config.loading import load_config, override
from paretohqd_jax.errors import InputError, Paused, did_you_mean
from paretohqd_jax.provenance import command_of_run, day_begun, made_by

logger = logging.getLogger(__name__)
UNUSABLE = {
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS
}  # fmt: skip
RUN_FLAGS = {
    "--config": "A file, or a name that `paretohqd configs` lists, as FILE or FILE:METHOD; options "
    "are changed by --config.select.k=50, and `paretohqd options METHOD` lists them.",
    "--workdir": "The run directory. A run goes on there: steps that are done are skipped.",
    "--begin_with": "Another run's directory: of its finished steps, those that are the same are "
    "copied.",
    "--stage": "Run this step alone; those before it must be done.",
    "--check": "Check the run, print its steps, sizes, memory and time, and end.",
    "--debug": "Show the traceback of an error, of commands too.",
}
DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


def main(argv: Sequence[str]) -> int:
    """Joins the job, parses the flags of a run and runs its method; returns the exit status."""
    argv = join_job(argv)
    only_check = "--check" in argv
    argv = [word for word in argv if word != "--check"]
    _log_to_stderr()  # by now it is known whether this is the process that tells
    config, workdir, stage, begin_with = parse_flags(argv)

    from paretohqd_jax.finished_steps import check_finished
    from paretohqd_jax.manifest import first_day
    from paretohqd_jax.methods import METHODS
    from paretohqd_jax.pipeline import Run, StageDone
    from paretohqd_jax.studies import STUDIES

    method = importlib.import_module((METHODS | STUDIES)[config.method])
    method.check(config)
    if stage not in ("", *method.STEPS):
        meant = did_you_mean(stage, method.STEPS)
        raise InputError(
            f"--stage={stage!r} does not exist; {meant}use one of {', '.join(method.STEPS)}"
        )
    if begin_with:
        check_finished(begin_with, Path(workdir))
    if only_check:
        from paretohqd_jax.steps.plan import plan_text

        print(plan_text(config, method.align, Path(workdir)))
        return 0
    logger.info(distributed.describe())
    if "date" in config.get("data", ()):
        began = distributed.on_main_process(lambda: first_day(Path(workdir)))
        config.data.date = config.data.date or began
    day = distributed.on_main_process(lambda: day_begun(Path(workdir)))
    told = made_by(command_of_run(argv[1:]), day)
    run = Run(Path(workdir), config.to_dict(), stage, told, begin_with)
    try:
        report = method.align(config, run)
    except StageDone:
        return 0
    except Paused as pause:
        if distributed.is_main_process():
            print(pause)
        return distributed.PAUSED
    finally:
        run.close()
    if distributed.is_main_process():
        print(f"report: {report}")
    return 0


def join_job(argv: Sequence[str]) -> list[str]:
    """Joins the other processes of the job, if there are any; returns the rest of the arguments.

    The configuration, a user's program that may touch a device, is read after that.

    Raises:
      InputError: a flag of the job does not fit.
      NotJoined: not all processes joined in time.
    """
    values = flags.FlagValues()
    try:
        flags.DEFINE_string(
            "coordinator", os.environ.get("JAX_COORDINATOR_ADDRESS"),
            "HOST:PORT of process 0; TPU VMs and Slurm need none of these.", flag_values=values,
        )  # fmt: skip
        for name in ("num_processes", "process_id"):
            default = os.environ.get(f"JAX_{name.upper()}")
            flags.DEFINE_integer(name, default, "Of the job or in it.", flag_values=values)
        flags.DEFINE_float(
            "join_timeout", 300.0, "Seconds to wait for all.", 1.0, flag_values=values
        )
        rest = values(list(argv), known_only=True)
    except flags.Error as error:
        raise InputError(str(error)) from error
    distributed.initialize(
        values.coordinator, values.num_processes, values.process_id, values.join_timeout
    )
    return rest


def parse_flags(argv: Sequence[str]) -> tuple[ConfigDict, str, str, Path | None]:
    """The configuration with its overrides, the run directory, the one stage to run or "", and
    the run directory to begin with.

    Raises:
      InputError: a flag is unknown or missing, its value does not fit, or the file cannot be read.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt()  # what is not read here stays for the overrides, wherever it stands
    for name in ("config", "config.method", "workdir", "stage", "begin_with"):
        flags.DEFINE_string(name, None, RUN_FLAGS.get(f"--{name}", ""), flag_values=values)
    try:
        rest = values(list(argv), known_only=True)
    except flags.Error as error:
        raise InputError(str(error)) from error
    for word in rest[1:]:
        name = word.partition("=")[0]
        if name.startswith("--") and not name.startswith(("--config.", "--noconfig.")):
            meant = did_you_mean(name, RUN_FLAGS)
            raise InputError(f"unknown option {name}; {meant}see paretohqd --help")
    for name in ("config", "workdir"):
        if not values[name].value:
            raise InputError(f"--{name} is missing; see the README for an example")
    config = load_config(values["config"].value)
    _check_method(config, values["config.method"].value, values["config"].value)
    rest = override(config, rest)
    if len(rest) > 1:
        raise InputError(
            f"unknown argument {rest[1]!r}; options look like --config.select.k=50, commands on "
            f"files are {', '.join(COMMANDS)}"
        )
    workdir, begin_with = (
        os.path.expanduser(values[name].value or "") for name in ("workdir", "begin_with")
    )
    return config, workdir, values["stage"].value or "", Path(begin_with) if begin_with else None


def _check_method(config: ConfigDict, wanted: str | None, source: str) -> None:
    """Raises InputError for a method that does not exist, or whose options the config has not."""
    has = config.get("method")
    options_of(wanted or has)
    if wanted in (None, has):
        return
    raise InputError(
        f"config.method={wanted!r}: the options of --config={source} are those of {has!r}; "
        f"write --config={source.partition(':')[0]}:{wanted}, if its get_config() takes a method"
    )


def console(argv: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake ends in one line and exit status 2, without a traceback."""
    argv = list(sys.argv if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    _log_to_stderr()
    sys.path.insert(0, "")  # as `python -m` does: package.module:function of the current directory
    try:
        if len(argv) < 2 or argv[1] in ("-h", "--help"):
            print(f"{__doc__}\nA run:")
            print(*(f"  {name:12} {what}" for name, what in RUN_FLAGS.items()), sep="\n")
            print("\nCommands, each with --help:")
            print(*(f"  {name:12} {what}" for name, what in summaries().items()), sep="\n")
        elif argv[1] in COMMANDS:
            distributed.stop_on_sigterm()
            run_command(argv[1:])
            sys.stdout.flush()
        elif not argv[1].startswith("-"):
            meant = did_you_mean(argv[1], COMMANDS)
            raise InputError(
                f"no command {argv[1]!r}; {meant}commands are {', '.join(COMMANDS)}; a run begins "
                "with --config"
            )
        elif status := main(argv):
            sys.exit(status)
    except InputError as error:
        if debug:
            traceback.print_exception(error)
        distributed.fail(2, str(error))
    except distributed.NotJoined as error:
        distributed.fail(distributed.LOST, str(error))
    except BrokenPipeError:  # who read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        distributed.fail(130, f"interrupted; {distributed.RESUMES}")
    except distributed.Preempted:
        if distributed.is_main_process():
            print(f"stopped by SIGTERM; {distributed.RESUMES}", file=sys.stderr)
        sys.exit(distributed.PREEMPTED)
    except Exception as error:
        if any(reason in str(error) for reason in DISK_FULL):  # storage libraries wrap OSError
            distributed.fail(2, f"the disk is full; free some space, {distributed.RESUMES}")
        if isinstance(error, OSError) and error.filename and error.errno in UNUSABLE:
            name, reason = error.filename, error.strerror
            if os.path.islink(name) and not os.path.exists(name):
                reason = f"a link to {os.readlink(name)}, which is not there"
            distributed.fail(2, f"{name}: {reason}; give another path")
        distributed.fail(1, f"{type(error).__name__}: {error}", error)
    finally:
        distributed.shutdown()


def _log_to_stderr() -> None:
    """Process 0 tells what it does, the others only what is wrong, with their number."""
    main = distributed.is_main_process()
    name = "" if main else f"process {distributed.process_id()}: "
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {name}%(message)s", "%H:%M:%S"))
    ours = logging.getLogger("paretohqd_jax")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO if main else logging.WARNING)
    ours.propagate = False
    for library in ("absl", "asyncio"):  # Orbax's: what goes wrong there is raised as well
        logging.getLogger(library).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    console()
