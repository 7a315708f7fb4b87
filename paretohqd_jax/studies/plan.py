"""What a study of many runs consists of: a program's `get_study()` says it, checked before it runs.

A study trains nothing itself: its runs are those of the command line, each in a directory of its
own, and its tables set what they leave side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretohqd_jax.config.loading import load_config, override, run_config
from paretohqd_jax.config.objectives import objective_names
from paretohqd_jax.errors import InputError
from paretohqd_jax.user_functions import find_function

NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Runs:
    """One config under several seeds.

    Attributes:
      name: of them in the study.
      config: as of --config.
      overrides: as on the command line, without the first part: "select.k=40". In braces stands
        what the study has prepared: "model.source={base}".
      seeds: of the runs.
      begin_with: the name of earlier runs; what the one of the same seed has done, and is the same,
        is not done again. Of these runs themselves: what the first seed has done.
    """

    name: str
    config: str
    overrides: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    begin_with: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: the policies of a family of runs.

    Attributes:
      name: in the table.
      runs: their name.
      family: of policies; "" is the last one, "base" the base model that they started from.
    """

    name: str
    runs: str
    family: str = ""


@dataclass(frozen=True)
class Table:
    """Rows that are measured by one yardstick.

    Attributes:
      name: of the table.
      rows: of it.
      against: the row that differences are to; "" is the first.
    """

    name: str
    rows: Sequence[Row]
    against: str = ""


@dataclass(frozen=True)
class Study:
    """Runs, and the tables that are made of them.

    Attributes:
      runs: in the order that they are begun in.
      tables: of these.
      prepare: what runs share: by name, a function "package.module:function(...)" whose last
        argument is the path that it leaves its result at.
    """

    runs: Sequence[Runs]
    tables: Sequence[Table]
    prepare: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
      name: of its `Runs`.
      seed: of it.
      arguments: of the command line.
      config: all of its options, with what the study has prepared in braces, so that the study's
        directory may move.
      begin_with: the label of the run whose steps it begins with, or "".
    """

    name: str
    seed: int
    arguments: Sequence[str]
    config: dict[str, Any]
    begin_with: str = ""

    @property
    def label(self) -> str:
        """Its name in the study, and of its directory and files."""
        return _label(self.name, self.seed)


def _label(name: str, seed: int) -> str:
    return f"{name}-{seed}"


def load_study(source: str) -> Study:
    """What get_study() of a program returns, without contradictions.

    Args:
      source: a path or the name of a config, and after a colon what get_study() is given.

    Raises:
      InputError: there is no such program, it fails, or what it says cannot be.
    """
    study = run_config(source, "get_study", "study ")
    if not isinstance(study, Study):
        raise InputError(f"study {source}: get_study() must return a Study (studies.plan)")
    names = [runs.name for runs in study.runs]
    _check_different(names, "runs are")
    _check_different([table.name for table in study.tables], "tables are")
    for number, runs in enumerate(study.runs):
        if not NAME.fullmatch(runs.name):
            raise InputError(f"runs {runs.name!r}: a name has letters, digits and . _ + - alone")
        if not runs.seeds:
            raise InputError(f"runs {runs.name!r}: no seeds; give one or more")
        _check_different(runs.seeds, f"seeds of the runs {runs.name!r} are")
        if runs.begin_with not in ("", *names[: number + 1]):
            raise InputError(f"runs {runs.name!r}: no runs {runs.begin_with!r} before them")
    for table in study.tables:
        rows = [row.name for row in table.rows]
        _check_different(rows, f"rows of the table {table.name!r} are")
        for row in table.rows:
            if row.runs not in names:
                raise InputError(f"table {table.name!r}: row {row.name!r}: no runs {row.runs!r}")
        if table.against not in ("", *rows):
            raise InputError(f"table {table.name!r}: no row {table.against!r} to be against")
    for name, function in study.prepare.items():
        find_function(function, f"study {source}: prepare {name!r}")
    return study


def split_argument(
    argument: str, options: Mapping[str, str | int]
) -> tuple[list[str], dict[str, Any]]:
    """What stands after a study's colon: names, and the options with what it changes of them.

    Raises InputError for what is no option, or no number where its option is one.
    """
    names, changed = [], dict(options)
    for part in filter(None, argument.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            names.append(part)
        elif name not in options or (isinstance(options[name], int) and not value.isdecimal()):
            kinds = {int: "NUMBER", str: "TEXT"}
            known = [f"{each}={kinds[type(default)]}" for each, default in options.items()]
            raise InputError(f"{part!r}: write {' or '.join(known)}")
        else:
            changed[name] = type(options[name])(value)
    return names, changed


def _check_different(names: Iterable[Any], what: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} {what} called {name!r}; give each a name of its own")


def plan(study: Study, workdir: Path) -> list[PlannedRun]:
    """The runs of a study, with all of their options; a seed of each before the next seed of any.

    Raises:
      InputError: a config cannot be read or has no such option, or the runs of one table have
        different objectives.
    """
    planned = {}
    for runs in study.runs:
        unseeded = _planned(study, runs, workdir)
        for seed in runs.seeds:
            arguments = [*unseeded.arguments, f"--config.seed={seed}"]
            config = unseeded.config | {"seed": seed}
            begin_with = _begin_with(runs, seed)
            planned[runs.name, seed] = PlannedRun(runs.name, seed, arguments, config, begin_with)
    for table in study.tables:
        _check_objectives(table, {name: run for (name, _), run in planned.items()})
    rounds = max((len(runs.seeds) for runs in study.runs), default=0)
    return [
        planned[runs.name, runs.seeds[number]]
        for number in range(rounds)
        for runs in study.runs
        if number < len(runs.seeds)
    ]


def _begin_with(runs: Runs, seed: int) -> str:
    """The label of the run that one of these begins with, or ""."""
    if runs.begin_with != runs.name:
        return runs.begin_with and _label(runs.begin_with, seed)
    first = runs.seeds[0]
    return "" if seed == first else _label(runs.name, first)


def _planned(study: Study, runs: Runs, workdir: Path) -> PlannedRun:
    """The run of no seed of its own."""
    changes = []
    for change in runs.overrides:
        for name in study.prepare:
            change = change.replace(f"{{{name}}}", str(prepared_path(workdir, name)))
        changes.append(f"--config.{change}")
    try:
        config = load_config(runs.config)
        unknown = override(config, ["study", *changes])[1:]
    except InputError as error:
        raise InputError(f"runs {runs.name!r}: {error}") from error
    if unknown:
        raise InputError(f"runs {runs.name!r}: {unknown[0]!r} is no option")
    arguments = [f"--config={runs.config}", *changes]
    places = {str(prepared_path(workdir, name)): f"{{{name}}}" for name in study.prepare}
    return PlannedRun(runs.name, 0, arguments, _with_names(config.to_dict(), places))


def _with_names(value: Any, places: Mapping[str, str]) -> Any:
    """The value with names for places, in groups and lists as JSON has them."""
    if isinstance(value, dict):
        return {name: _with_names(part, places) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_names(part, places) for part in value]
    return places.get(value, value) if isinstance(value, str) else value


def prepared_path(workdir: Path, name: str) -> Path:
    """Where what runs share is left."""
    return (workdir / "prepared" / name).absolute()


def _check_objectives(table: Table, planned: Mapping[str, PlannedRun]) -> None:
    """Raises InputError for a row whose runs do not have the first row's objectives."""
    objectives = {
        row.name: objective_names(planned[row.runs].config["rewards"]["models"])
        for row in table.rows
    }
    first, *others = objectives
    for name in others:
        if objectives[name] != objectives[first]:
            raise InputError(
                f"table {table.name!r}: the objectives of row {name!r} are "
                f"{', '.join(objectives[name])}, those of {first!r} {', '.join(objectives[first])};"
                " put them into tables of their own"
            )
