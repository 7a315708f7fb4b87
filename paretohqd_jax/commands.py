"""Parts of the library as commands on files, such as `paretohqd select scores.parquet`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from paretohqd_jax.chat_command import chat_command
from paretohqd_jax.compare_command import compare_command
from paretohqd_jax.convert_command import convert_command
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.rows import check_writable
from paretohqd_jax.errors import InputError
from paretohqd_jax.measure_command import measure_command
from paretohqd_jax.merge_command import merge_command
from paretohqd_jax.rewards_commands import (
    hypervolume_command,
    inspect_command,
    rank_command,
    select_command,
)
from paretohqd_jax.sample_command import sample_command
from paretohqd_jax.score_command import score_command

COMMANDS = (
    "convert", "score", "select", "rank", "hypervolume", "inspect", "compare", "sample", "measure",
    "chat", "merge",
)  # fmt: skip
PATHS = ("file", "out", "plot", "json", "workdir", "prompts", "instructions")  # "~" may begin them


def run(argv: Sequence[str]) -> None:
    """Parses and runs one command; what it shall write is checked before its work.

    Raises:
      InputError: an option is unknown, missing or does not fit.
    """
    options = _parser().parse_args(_join_negative(argv))
    for name in PATHS:
        if getattr(options, name, None):
            setattr(options, name, os.path.expanduser(getattr(options, name)))
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
    select.add_argument(
        "--rule", choices=("ray", "weighted_sum"), default="ray",
        help="pooled rows nearest to the ray, or of the largest weighted sum",
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
