"""Parts of the library as commands on files, such as `paretohqd select scores.parquet`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import pyarrow as pa

from paretohqd_jax.chat_command import chat_command
from paretohqd_jax.compare_command import compare_command
from paretohqd_jax.config import parse_preferences
from paretohqd_jax.data.pairs import rows_of, sample_conflict
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.rows import (
    check_columns,
    check_ranges,
    check_writable,
    read_table,
    rewards_matrix,
    write_table,
)
from paretohqd_jax.data.sources import check_source, load_pairs, read_source
from paretohqd_jax.errors import InputError
from paretohqd_jax.measure_command import measure_command
from paretohqd_jax.merge_command import merge_command
from paretohqd_jax.sample_command import sample_command
from paretohqd_jax.score_command import score_command

COMMANDS = (
    "convert", "score", "select", "rank", "hypervolume", "inspect", "compare", "sample", "measure",
    "chat", "merge",
)  # fmt: skip


def convert_command(options: argparse.Namespace) -> None:
    """Writes a data set as scored rows, or as preference pairs with a label per objective."""
    if options.conflict is not None and not options.pairs:
        raise InputError("--conflict is a share of pairs; give --pairs with it")
    check_source(options.source)
    where = (options.source, options.format, options.columns, options.split, options.revision)
    table = load_pairs(*where) if options.pairs else rows_of(read_source(*where))
    check_columns(table, ("prompt", "chosen" if options.pairs else "response"), options.source)
    if options.conflict is not None:
        table = sample_conflict(table, options.conflict, options.seed)
    write_table(options.out, table)
    print(f"{options.out}: {table.num_rows} rows with {', '.join(table.column_names)}")


def read_rewards(options: argparse.Namespace) -> tuple[pa.Table, np.ndarray, list[str]]:
    """The table of `options.file`, its rewards `[num_rows, num_objectives]`, and their names."""
    objectives = options.objectives.split(",")
    if len(set(objectives)) < len(objectives):
        raise InputError(f"--objectives {options.objectives}: name each column once")
    table = read_table(options.file)
    return table, rewards_matrix(table, objectives, options.file), objectives


def rank_command(options: argparse.Namespace) -> None:
    """Adds each row's non-dominated layer, counted from 0, as the column `rank`."""
    from paretohqd_jax.pareto import non_dominated_rank

    table, rewards, _ = read_rewards(options)
    ranks = np.asarray(non_dominated_rank(rewards))
    if "rank" in table.column_names:
        table = table.drop_columns(["rank"])
    write_table(options.out, table.append_column("rank", pa.array(ranks)))
    print(f"{options.out}: {len(ranks)} rows in {ranks.max() + 1} non-dominated layers")


def hypervolume_command(options: argparse.Namespace) -> None:
    """Prints the volume between the reference point and the rows that are above it."""
    from paretohqd_jax.pareto import hypervolume

    _, rewards, objectives = read_rewards(options)
    try:
        reference = np.array([float(value) for value in options.reference.split(",")])
    except ValueError as error:
        raise InputError(f"--reference {options.reference}: {error}; write it like 0,0") from error
    if len(reference) != len(objectives):
        raise InputError(
            f"--reference has {len(reference)} values for {len(objectives)} objectives"
        )
    print(f"{float(hypervolume(rewards, reference)):.10g}")


def inspect_command(options: argparse.Namespace) -> None:
    """Prints what the objectives look like and warns of what would make a poor selection."""
    from paretohqd_jax.evaluation.inspection import plot_rewards, reward_warnings, summary_lines

    table, rewards, objectives = read_rewards(options)
    print(f"{options.file}: {len(rewards)} rows")
    print(*summary_lines(rewards, objectives), sep="\n")
    texts = None
    if {"prompt", "response"} <= set(table.column_names):
        rows = table.select(["prompt", "response"]).to_pylist()
        texts = [repr(row) for row in rows]  # a prompt may be a list of messages
    for warning in reward_warnings(rewards, objectives, texts):
        print(f"warning: {warning}")
    if options.plot:
        plot_rewards(options.plot, rewards, objectives)


def select_command(options: argparse.Namespace) -> None:
    """Selects k rows per preference from a file of scored rows."""
    from paretohqd_jax.evaluation.plots import plot_front
    from paretohqd_jax.methods.selection import selection_columns
    from paretohqd_jax.pareto import select

    table, rewards, objectives = read_rewards(options)
    if len(objectives) < 2:
        raise InputError("--objectives needs two or more column names, such as helpful,harmless")
    preferences = parse_preferences(options.preferences, len(objectives))
    if len(rewards) < options.k:
        raise InputError(f"{options.file}: has {len(rewards)} rows, fewer than k={options.k}")
    check_ranges(rewards, objectives, options.file)
    pool = options.pool or options.k * len(preferences)
    if pool > len(rewards):
        print(
            f"{options.file}: has {len(rewards)} rows, fewer than a pool of {pool}: all are in it"
        )
    selection = select(
        rewards, preferences, options.k, min(pool, len(rewards)),
        range_scope=options.range_scope, normalize=not options.raw,
    )  # fmt: skip
    columns = selection_columns(selection, np.arange(len(rewards)))
    rows = table.take(columns["row_id"])
    others = {name: rows[name] for name in rows.column_names if name not in columns}
    write_table(options.out, pa.table(columns | others))
    ranks = np.asarray(selection.ranks)
    print(
        f"{options.out}: {options.k} rows for each of {len(preferences)} preferences, "
        f"{np.unique(columns['row_id']).size} different ones, from a pool of {(ranks >= 0).sum()} "
        f"in {ranks.max() + 1} layers"
    )
    if options.plot:
        plot_front(options.plot, objectives, preferences, rewards, selection)


def run(argv: Sequence[str]) -> None:
    """Parses and runs one command; what it shall write is checked before its work.

    Raises:
      InputError: an option is unknown, missing or does not fit.
    """
    options = _parser().parse_args(_join_negative(argv))
    if "out" in options and options.run not in (compare_command, merge_command):  # directories
        check_writable(options.out)
    for name in ("plot", "json"):
        if getattr(options, name, None):
            check_writable(getattr(options, name), (".png" if name == "plot" else ".json",))
    options.run(options)


class Parser(argparse.ArgumentParser):
    """Its errors are InputErrors, shown in one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{' '.join(message.split())}; see {self.prog} --help")


def _join_negative(argv: Sequence[str]) -> list[str]:
    """`--reference -9,-9` as `--reference=-9,-9`: argparse takes -9,-9 alone for an option."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] == "--reference" and re.match(r"-[\d.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="paretohqd", description=__doc__)
    commands = parser.add_subparsers(required=True)

    convert = commands.add_parser("convert", help=convert_command.__doc__)
    convert.set_defaults(run=convert_command)
    convert.add_argument("source", help="as config.data.source")
    convert.add_argument("--format", choices=("plain", *PUBLIC_FORMATS), default="plain")
    convert.add_argument("--columns", default="", help="new names: prompt=question,...")
    convert.add_argument("--split", default="train", help="of a directory or hub name")
    convert.add_argument("--revision", default="", help="of a hub name: a commit or tag")
    convert.add_argument("--pairs", action="store_true", help="preference pairs, not rows")
    convert.add_argument("--conflict", type=float, help="share of pairs whose labels disagree")
    convert.add_argument("--seed", type=int, default=0, help="of the pairs that --conflict draws")
    convert.add_argument("--out", required=True, help="parquet, jsonl or csv to write")

    score = commands.add_parser("score", help=score_command.__doc__)
    score.set_defaults(run=score_command)
    score.add_argument("file", help="rows with prompt and response: parquet, jsonl or csv")
    score.add_argument("--models", required=True, help="as config.rewards.models: a,COLUMN=b,...")
    score.add_argument("--backend", choices=("jax", "torch"), default="jax")
    score.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    score.add_argument("--batch-size", type=positive_integer, default=64, help="rows at a time")
    score.add_argument("--out", required=True, help="parquet, jsonl or csv to write")

    select = commands.add_parser("select", help=select_command.__doc__)
    select.set_defaults(run=select_command)
    _add_rewards(select)
    select.add_argument(
        "--preferences", default="11", help="grid points, a list's name, or '0.8,0.2;0.5,0.5'"
    )
    select.add_argument("-k", type=positive_integer, default=100, help="rows per preference")
    select.add_argument(
        "--pool", type=positive_integer, help="least pool size N_p (default: k times preferences)"
    )
    select.add_argument(
        "--range-scope", choices=("data", "pareto", "quantile"), default="data",
        help="rows whose lowest and highest rewards set the directions",
    )  # fmt: skip
    select.add_argument("--raw", action="store_true", help="distances without normalisation")
    select.add_argument("--out", required=True, help="parquet, jsonl or csv to write")
    select.add_argument("--plot", help="png to write")

    rank = commands.add_parser("rank", help=rank_command.__doc__)
    rank.set_defaults(run=rank_command)
    _add_rewards(rank)
    rank.add_argument("--out", required=True, help="parquet, jsonl or csv to write")

    hypervolume = commands.add_parser("hypervolume", help=hypervolume_command.__doc__)
    hypervolume.set_defaults(run=hypervolume_command)
    _add_rewards(hypervolume)
    hypervolume.add_argument("--reference", required=True, help="the reference point: 0,0,...")

    inspect = commands.add_parser("inspect", help=inspect_command.__doc__)
    inspect.set_defaults(run=inspect_command)
    _add_rewards(inspect)
    inspect.add_argument("--plot", help="png to write")

    measure = commands.add_parser("measure", help=measure_command.__doc__)
    measure.set_defaults(run=measure_command)
    measure.add_argument("model", help="name or folder of a reward model trained here")
    measure.add_argument("data", help="as config.data.source: what it was trained on, or new data")
    measure.add_argument("--all", action="store_true", help="all prompts, not those held out alone")
    measure.add_argument("--json", help="json to write")

    compare = commands.add_parser("compare", help=compare_command.__doc__)
    compare.set_defaults(run=compare_command)
    compare.add_argument("runs", nargs="+", help="[NAME=]DIR, or [NAME=]DIR,DIR,... for seeds")
    compare.add_argument("--stage", default="", help="stage1 or stage2 (default: the last)")
    compare.add_argument(
        "--intersect", action="store_true", help="on the test prompts that all runs share"
    )
    compare.add_argument(
        "--base", action="store_true", help="begin with the base model, so that gains are above it"
    )
    compare.add_argument("--out", required=True, help="directory for the table and the plot")

    sample = commands.add_parser("sample", help=sample_command.__doc__)
    sample.set_defaults(run=sample_command)
    sample.add_argument("--model", required=True, help="as config.model.source")
    sample.add_argument("--prompts", required=True, help="text file, one prompt per line")
    sample.add_argument("--instructions", required=True, help="jsonl of instructions and sampling")
    sample.add_argument("--out", required=True, help="parquet, jsonl or csv to write")
    sample.add_argument("--batch-size", type=positive_integer, default=32, help="prompts at a time")
    sample.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    sample.add_argument("--seed", type=int, default=0)

    chat = commands.add_parser("chat", help=chat_command.__doc__)
    chat.set_defaults(run=chat_command)
    _add_model(chat)
    chat.add_argument("--prompt", help="answer this and end")
    chat.add_argument("--temperature", type=float, help="default: that of config.evaluate")
    chat.add_argument(
        "--max-new-tokens", type=positive_integer, help="default: those of config.evaluate"
    )
    chat.add_argument("--seed", type=int, default=0)

    merge = commands.add_parser("merge", help=merge_command.__doc__)
    merge.set_defaults(run=merge_command)
    _add_model(merge)
    merge.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the run's")
    merge.add_argument("--out", required=True, help="directory to write")
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, help="run directory, its stage 2 done")
    command.add_argument("--preference", required=True, help="one weight per objective: 0.8,0.2")
    command.add_argument(
        "--interpolate", action="store_true", help="mix the neighbours of one that was not trained"
    )
    command.add_argument("--model", default="", help="where the base model lies, if it has moved")


def _add_rewards(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", help="scored rows: parquet, jsonl or csv")
    command.add_argument("--objectives", required=True, help="columns, larger is better: a,b,...")


def positive_integer(text: str) -> int:
    """An option's value, which must be a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
