"""The command `paretohqd inspect`: what is wrong with the rewards of a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pyarrow as pa

from paretohqd_jax.commands.rewards_file import add_rewards, read_rewards
from paretohqd_jax.config import names_in, objective_names, split_model
from paretohqd_jax.data.messages import read_conversations
from paretohqd_jax.data.reward_columns import check_magnitudes
from paretohqd_jax.data.rows import check_texts, check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rewards(parser)
    parser.add_argument("--plot", help="png to write")
    parser.add_argument(
        "--models", default="",
        help="as config.rewards.models: reward models to try on corrupted copies of the responses",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Prints what the objectives look like and warns of what would make a poor selection.

    Warns too of reward models among --models that prefer corrupted copies of the responses.
    """
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
    models = names_in(options.models)
    answered = _checked_texts(table, models, options.file) if models else None
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
    for model in models:
        for line in _robustness_lines(model, answered):
            print(line)


def _checked_texts(table: pa.Table, models: Sequence[str], source: str) -> pa.Table:
    """The table with texts for prompts and responses; InputError for these or a model."""
    from paretohqd_jax.rewards.scoring import check_scorer

    objective_names(models)
    for model in models:
        check_scorer(split_model(model)[1], "jax")
    table = read_conversations(table, source)
    check_texts(table, source)
    return table


def _robustness_lines(model: str, table: pa.Table) -> list[str]:
    """What corrupted copies a reward model is fooled by, each with the worst example."""
    from paretohqd_jax.evaluation.robustness import NUM_PROMPTS, robustness_lines
    from paretohqd_jax.steps.robustness import answers_for_copies, measure_robustness
    from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

    answers = answers_for_copies(table, NUM_PROMPTS)
    with sharded(make_mesh(), DECODING_RULES):
        return robustness_lines(split_model(model)[0], *measure_robustness(model, answers))
