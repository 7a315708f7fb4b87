"""The command `paretohqd compare`: runs on one normalisation, in one table and one plot."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.commands.arguments import add_exact
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.comparison import Contender, compare_fronts
from paretohqd_jax.evaluation.comparison_plot import plot_comparison
from paretohqd_jax.files import atomic_path, write_json
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
        if any(_trade_offs(one) != _trade_offs(group[0]) for one in group):
            raise InputError(f"{name}: its runs have different preferences; name them apart")
    prompts = _shared_prompts(every, options.intersect)
    contenders = {
        name: Contender(
            [one.on(prompts).front for one in group],
            [one.on(prompts).base for one in group],
        )
        for name, group in results.items()
    }
    first = every[0]
    if options.base:
        bases = contenders[next(iter(results))].bases
        base = Contender([[base] for base in bases], bases)
        contenders = {"base model": base} | contenders
    frame = dataclasses.replace(first.frame, source=f"{first.frame.source} of {first.workdir}")
    comparison = compare_fronts(first.objectives, contenders, frame, options.exact)
    write_json(out / "comparison.json", comparison | {"runs": directories})
    plot_comparison(out / "comparison.png", comparison)
    table = comparison_table(comparison)
    with atomic_path(out / "comparison.md") as temporary:
        temporary.write_text(table)
    print(table, end="")
    print(f"\n{out}: comparison.md, comparison.png, comparison.json")


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
        if one.sampling != first.sampling:
            logger.warning(
                "%s sampled with %s, %s with %s", one.workdir, one.sampling, first.workdir,
                first.sampling,
            )  # fmt: skip


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


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """What `compare_fronts` returned, as a table in Markdown with the frames below it."""
    frames = comparison["frames"]
    header = ["", "runs"]
    for frame in frames:
        header += [f"hypervolume ({frame['name']})", "gain"]
    header += ["IGD+", "steerability", "dominated", "collapsed", "tokens"]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for name, front in comparison["fronts"].items():
        row = [name, str(front["num_runs"])]
        for frame in (frame["name"] for frame in frames):
            row.append(_with_interval(front, "hypervolume", frame))
            row.append(_with_interval(front, "gain", frame) if "gain" in front else "")
        num_tokens = np.mean([model["num_tokens"] for model in front["models"]])
        row += [
            f"{front['igd_plus']:.3f}",
            ", ".join(f"{value:.2f}" for value in front["steerability"] or ()),
            f"{front['dominated_share']:.0%}",
            f"{front['collapse']['total']:.1%}",
            f"{num_tokens:.0f}",
        ]
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    percent = f"{comparison['bootstrap']['confidence']:.0%}"
    notes = [
        f"{comparison['num_prompts']} prompts. In brackets, {percent} intervals by the bootstrap "
        "over prompts, and over runs where there are several; gains are above the first row. "
        f"Steerability is by objective ({', '.join(comparison['objectives'])}), of several models "
        "with preferences."
    ]
    if any(any(front["hypervolume_error"].values()) for front in comparison["fronts"].values()):
        notes.append("± is the standard error of a Monte-Carlo estimate; --exact makes it exact.")
    for frame in frames:
        reference = ", ".join(f"{value:.4g}" for value in frame["reference_in_rewards"])
        notes.append(f"{frame['name']}: {frame['source']}; reference point ({reference}).")
    return "\n".join([*lines, "", *notes]) + "\n"


def _with_interval(front: Mapping[str, Any], what: str, frame: str) -> str:
    low, high = front[f"{what}_interval"][frame]
    sign = "+" if what == "gain" else ""
    estimated = front["hypervolume_error"][frame] if what == "hypervolume" else 0
    error = f" ± {estimated:.2g}" if estimated else ""
    return f"{front[what][frame]:{sign}.3f}{error} [{low:{sign}.3f}, {high:{sign}.3f}]"
