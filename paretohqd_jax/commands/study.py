"""The command `paretohqd study`: many runs, and the tables of what they leave."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.distributed import Preempted
from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import PlannedRun, Study, load_study, plan
from paretohqd_jax.studies.running import is_done, locked, points_path, prepare_all, run_all
from paretohqd_jax.studies.stored import read_points

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="a file or name of configs/, as studies/controlled")
    parser.add_argument("--workdir", required=True, help="of the runs, their points and the tables")
    parser.add_argument("--jobs", type=positive_integer, default=1, help="runs at a time")
    parser.add_argument("--part", type=_part, default=(1, 1), help="i/n: every n-th run alone")
    parser.add_argument(
        "--points", nargs="+", metavar="FILE", help="make the tables of these points, run nothing"
    )


def run(options: argparse.Namespace) -> None:
    """Does the runs of a study that are not done yet, and makes its tables of all that are.

    The same command goes on where it was cut off; several processes may work on one study.
    """
    jax.config.update("jax_platforms", "cpu")  # the devices are for the runs
    study, workdir = load_study(options.study), Path(options.workdir)
    check_writable(workdir / "table.json", (".json",))
    planned = plan(study, workdir)
    if options.points:
        return tell(study, planned, [Path(path) for path in options.points], workdir)
    signal.signal(signal.SIGTERM, _stop)
    number, of = options.part
    prepare_all(study, workdir)
    failed = run_all(planned[number - 1 :: of], workdir, options.jobs)
    paths = [points_path(workdir, each) for each in planned if is_done(workdir, each)]
    if paths or not failed:
        _tell_together(study, planned, paths, workdir)
    if failed:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in failed.items())
        raise InputError(
            f"{len(failed)} runs failed, and the tables lack them ({reasons:.500}); "
            f"{workdir / 'runs' / next(iter(failed)) / 'log.txt'} says more, and the same command "
            "tries again"
        )


def _tell_together(
    study: Study, planned: Sequence[PlannedRun], paths: Sequence[Path], workdir: Path
) -> None:
    """Makes the tables, one process at a time: those who share a study end at the same time.

    Who has waited while another made them of the same points has nothing left to do.
    """
    told = workdir / "locks" / "tables_of"
    before = told.stat().st_mtime_ns if told.is_file() else 0
    labels = "\n".join(path.stem for path in paths)
    with locked(workdir / "locks" / "tables"):
        changed = told.is_file() and told.stat().st_mtime_ns != before
        if not (changed and told.read_text() == labels):
            tell(study, planned, paths, workdir)
            told.write_text(labels)


def tell(study: Study, planned: Sequence[PlannedRun], paths: Sequence[Path], workdir: Path) -> None:
    """Makes the tables of these points.

    Raises:
      InputError: points cannot be read, do not compare, or name another true front than the config
        of their run; the front is a function, and what is called is for the study to say.
    """
    from paretohqd_jax.studies.run_tables import write_tables

    if not paths:
        raise InputError("no run is done, so there is nothing to make tables of")
    runs = [run for path in paths for run in read_points(path)]
    truths = {each.name: each.config.get("evaluate", {}).get("truth", "") for each in planned}
    for run in runs:
        truth = run.config["evaluate"].get("truth", "")
        if truth != truths.get(run.name, truth):
            raise InputError(
                f"the points of the run {run.name!r} of seed {run.seed} are measured against the "
                f"true front {truth!r:.200}, and its config names {truths[run.name]!r}"
            )
    written = write_tables(study, runs, workdir)
    print(f"{workdir}: {', '.join(written)}")


def _part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 1 to n")
    return int(number), int(of)


def _stop(signal_number: int, frame: object) -> NoReturn:
    raise Preempted
