"""The command `paretohqd inspect`: what is wrong with the rewards of a file."""

from __future__ import annotations

import argparse

from paretohqd_jax.commands.rewards_file import add_rewards, read_rewards
from paretohqd_jax.data.reward_columns import check_magnitudes
from paretohqd_jax.data.rows import check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rewards(parser)
    parser.add_argument("--plot", help="png to write")


def run(options: argparse.Namespace) -> None:
    """Prints what the objectives look like and warns of what would make a poor selection."""
    from paretohqd_jax.evaluation.inspection import (
        plot_rewards,
        prompt_lines,
        reward_warnings,
        summary_lines,
    )

    if options.plot:
        check_writable(options.plot, (".png",))
    table, rewards, objectives = read_rewards(options)
    check_magnitudes(rewards, objectives, options.file)
    print(f"{options.file}: {len(rewards)} rows")
    print(*summary_lines(rewards, objectives), sep="\n")
    if "prompt" in table.column_names:
        prompts = list(map(repr, table["prompt"].to_pylist()))  # it may be a list of messages
        print(*prompt_lines(rewards, objectives, prompts), sep="\n")
    texts = None
    if {"prompt", "response"} <= set(table.column_names):
        rows = table.select(["prompt", "response"]).to_pylist()
        texts = [repr(row) for row in rows]  # a prompt may be a list of messages
    for warning in reward_warnings(rewards, objectives, texts):
        print(f"warning: {warning}")
    if options.plot:
        plot_rewards(options.plot, rewards, objectives)
