"""The command `paretohqd compare`: runs on one normalisation, in one table and one plot."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax import provenance
from paretohqd_jax.commands.arguments import add_exact
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.comparison import Contender, compare_fronts
from paretohqd_jax.evaluation.comparison_latex import comparison_latex
from paretohqd_jax.evaluation.comparison_plot import plot_comparison
from paretohqd_jax.evaluation.comparison_tables import comparison_text
from paretohqd_jax.evaluation.plots import SUFFIXES
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.files import atomic_path, write_json
from paretohqd_jax.policies import BASE
from paretohqd_jax.steps.results import Results, read_results

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="[NAME=]DIR, or [NAME=]DIR,DIR,... for seeds")
    parser.add_argument("--family", default="", help="of policies (default: the last)")
    parser.add_argument(
        "--intersect", action="store_true", help="on the test prompts that all runs share"
    )
    parser.add_argument(
        "--base", action="store_true", help="begin with the base model, so that gains are above it"
    )
    add_exact(parser)
    parser.add_argument("--out", required=True, help="directory for the table and the plot")


def run(options: argparse.Namespace) -> None:
    """Compares the fronts of finished runs: hypervolume, gains, intervals, a table and a plot.

    Each argument is [NAME=]DIR, or [NAME=]DIR,DIR,... for one method run under several seeds.
    """
    out = Path(options.out)
    check_writable(out / "comparison.json", (".json",))
    directories = _parse_runs(options.runs)
    results = {
        name: [read_results(Path(directory), options.family) for directory in group]
        for name, group in directories.items()
    }
    every = [one for group in results.values() for one in group]
    _check_same(every)
    for name, group in results.items():
        _check_seeds(name, group)
    prompts = _shared_prompts(every, options.intersect)
    shared = {name: [one.on(prompts) for one in group] for name, group in results.items()}
    contenders = {
        name: Contender([one.front for one in group], [one.base for one in group])
        for name, group in shared.items()
    }
    bases: dict[str, list[ModelResponses]] = {}
    for one in (one for group in shared.values() for one in group):
        bases.setdefault(one.base_model, []).append(one.base)
    bases = {BASE.label: next(iter(bases.values()))} if len(bases) == 1 else bases
    if options.base:
        if len(bases) > 1:
            raise InputError(f"--base: the runs have different base models: {', '.join(bases)}")
        [answers] = bases.values()
        contenders = {BASE.label: Contender([[base] for base in answers], answers)} | contenders
    first = every[0]
    frame = dataclasses.replace(first.frame, source=f"{first.frame.source} of {first.workdir}")
    comparison = compare_fronts(
        first.objectives, contenders, bases, frame, first.box, options.exact
    )
    efforts = {name: [one.effort for one in group] for name, group in results.items()}
    made_by = provenance.made_by(options.command, datetime.date.today().isoformat())
    facts = {"runs": directories, "efforts": efforts, "made_by": made_by}
    write_json(out / "comparison.json", comparison | facts)
    for suffix in SUFFIXES:
        plot_comparison(out / f"comparison{suffix}", comparison)
    text = comparison_text(comparison, efforts, made_by)
    latex = comparison_latex(comparison, efforts, made_by)
    for name, content in (("comparison.md", text), ("comparison.tex", latex)):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content, "utf-8")
    print(text, end="")
    print(f"\n{out}: comparison.md, .tex, .json, .png, .pdf, .svg")


def _check_seeds(name: str, group: Sequence[Results]) -> None:
    """Raises InputError unless these are runs of one method that differ in nothing but the seed."""
    first = group[0]
    places = [one.workdir.resolve() for one in group]
    if len(set(places)) < len(places):
        raise InputError(f"{name}: names a run twice; give each once")
    for one in group[1:]:
        if _trade_offs(one) != _trade_offs(first):
            raise InputError(f"{name}: its runs have different preferences; name them apart")
        names = sorted(
            option
            for option in first.options.keys() | one.options.keys()
            if first.options.get(option) != one.options.get(option)
        )
        if names:
            differ = "; ".join(
                f"{option} is {one.options.get(option)!r} in {one.workdir}, "
                f"{first.options.get(option)!r} in {first.workdir}"
                for option in names
            )
            raise InputError(
                f"{name}: its runs differ in more than the seed ({differ:.300}); name them apart"
            )


def _trade_offs(one: Results) -> list[tuple[str, tuple[float, ...] | None]]:
    return [(policy.label, policy.preference) for policy in one.policies]


def _parse_runs(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The directories of each contender by its name, by default the directory's own name."""
    named: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, directories = argument.rpartition("=")
        group = [os.path.expanduser(directory) for directory in directories.split(",") if directory]
        if not group or (equals and not name):
            raise InputError(f"{argument!r}: write [NAME=]DIR or [NAME=]DIR,DIR,...")
        name = name or Path(group[0]).name
        if name in named:
            raise InputError(f"{argument!r}: another run is called {name!r}; write NAME={argument}")
        named[name] = group
    return named


def _check_same(every: Sequence[Results]) -> None:
    """Raises InputError where runs measure different things; warns where they sampled otherwise."""
    first = every[0]
    for one in every[1:]:
        for what in ("objectives", "models"):
            ours, theirs = getattr(first, what), getattr(one, what)
            if ours != theirs:
                raise InputError(
                    f"{one.workdir}: its {what} are {', '.join(theirs)}, those of {first.workdir} "
                    f"{', '.join(ours)}; runs compare only on the same objectives, scored alike"
                )
        for what in ("frame", "box"):
            ours, theirs = (getattr(each, what).to_dict() for each in (first, one))
            for part in [part for part in ours if part != "source"]:
                if not _alike(ours[part], theirs[part]):
                    raise InputError(
                        f"{one.workdir}: the {part} of its {what} is {theirs[part]}, that of "
                        f"{first.workdir} {ours[part]}; hypervolumes and achievements compare only "
                        "where the training rows are the same, scored alike"
                    )
        if one.sampling != first.sampling:
            logger.warning(
                "%s sampled with %s, %s with %s", one.workdir, one.sampling, first.workdir,
                first.sampling,
            )  # fmt: skip


def _alike(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str):
        return ours == theirs
    return np.shape(ours) == np.shape(theirs) and np.allclose(ours, theirs)


def _shared_prompts(every: Sequence[Results], intersect: bool) -> list[str]:
    """The held-out prompts of all runs, in the order of the first.

    Raises:
      InputError: they differ and are not to be intersected, or none is shared.
    """
    shared = set(every[0].prompts).intersection(*(one.prompts for one in every))
    most = max(len(one.prompts) for one in every)
    if len(shared) < most:
        counts = ", ".join(f"{one.workdir} {len(one.prompts)}" for one in every)
        found = f"the runs have different test prompts ({counts}), {len(shared)} of them shared"
        if not shared:
            raise InputError(f"{found}, so there is nothing to compare them on")
        if not intersect:
            raise InputError(f"{found}; --intersect compares on shared ones alone")
        logger.warning("%s; compared on these", found)
    return [prompt for prompt in every[0].prompts if prompt in shared]
