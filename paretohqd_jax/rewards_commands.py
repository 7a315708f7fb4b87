"""The commands on a file of scored rows: `paretohqd select`, `rank`, `hypervolume`, `inspect`."""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

from paretohqd_jax.config import parse_preferences
from paretohqd_jax.data.rows import check_ranges, read_table, rewards_matrix, write_table
from paretohqd_jax.errors import InputError


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
    from paretohqd_jax.pareto.selection import default_pool_size

    table, rewards, objectives = read_rewards(options)
    if len(objectives) < 2:
        raise InputError("--objectives needs two or more column names, such as helpful,harmless")
    preferences = parse_preferences(options.preferences, len(objectives))
    if len(rewards) < options.k:
        raise InputError(f"{options.file}: has {len(rewards)} rows, fewer than k={options.k}")
    check_ranges(rewards, objectives, options.file)
    pool = options.pool or default_pool_size(
        options.rule, options.k, len(preferences), len(rewards)
    )
    if pool > len(rewards):
        print(
            f"{options.file}: has {len(rewards)} rows, fewer than a pool of {pool}: all are in it"
        )
    selection = select(
        rewards, preferences, options.k, min(pool, len(rewards)),
        range_scope=options.range_scope, normalize=not options.raw, rule=options.rule,
        augmentation=options.augmentation, min_gap=options.min_gap,
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
