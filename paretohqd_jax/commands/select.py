"""The command `paretohqd select`: k rows per preference out of a file of scored rows."""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.commands.rewards_file import add_rewards, read_rewards
from paretohqd_jax.config import parse_preferences
from paretohqd_jax.data.gates import count_failures, failures, in_words, parse_gates
from paretohqd_jax.data.messages import with_messages
from paretohqd_jax.data.reward_columns import check_ranges
from paretohqd_jax.data.rows import check_kept, check_writable, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.chebyshev import AUGMENTATION, MIN_GAP
from paretohqd_jax.pareto.selection import RULES, default_pool_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rewards(parser)
    parser.add_argument(
        "--preferences", default="11", help="grid points, a list's name, or '0.8,0.2;0.5,0.5'"
    )
    parser.add_argument("-k", type=positive_integer, default=100, help="rows per preference")
    parser.add_argument(
        "--pool", type=positive_integer,
        help="least pool size N_p (default: k times preferences; of chebyshev: all rows)",
    )  # fmt: skip
    parser.add_argument(
        "--range-scope", choices=("data", "pareto", "quantile"), default="data",
        help="rows whose lowest and highest rewards set the directions",
    )  # fmt: skip
    parser.add_argument(
        "--rule", choices=RULES, default="ray",
        help="pooled rows nearest to the ray, of the largest weighted sum, or of the smallest "
        "weighted Chebyshev distance",
    )  # fmt: skip
    parser.add_argument(
        "--augmentation", type=float, default=AUGMENTATION,
        help="of chebyshev: the weight of the sum beside the maximum (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-gap", type=float, default=MIN_GAP,
        help="of chebyshev: the least gap, on the corners of the simplex (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gate", action="append", default=[], metavar="'COLUMN>=NUMBER'",
        help="leave rows out that fail it; also with <=, > and <, and several times",
    )  # fmt: skip
    parser.add_argument("--raw", action="store_true", help="distances without normalisation")
    parser.add_argument("--out", required=True, help="parquet, jsonl or csv to write")
    parser.add_argument("--plot", help="png, pdf or svg to write")


def run(options: argparse.Namespace) -> None:
    """Selects k rows per preference from a file of scored rows."""
    from paretohqd_jax.evaluation.plots import plot_panels, selection_panels
    from paretohqd_jax.pareto import select
    from paretohqd_jax.steps.selection import pool_advice, selection_columns

    check_writable(options.out)
    if options.plot:
        check_writable(options.plot, (".png", ".pdf", ".svg"))
    gates = parse_gates(options.gate, "--gate")
    if options.pool and options.pool < options.k:
        raise InputError(f"--pool {options.pool} is below -k {options.k}; give at least as many")
    table, rewards, objectives = read_rewards(options)
    if len(objectives) < 2:
        raise InputError("--objectives needs two or more column names, such as helpful,harmless")
    preferences = parse_preferences(options.preferences, len(objectives))
    failed = failures(table, gates, options.file)
    candidates = np.flatnonzero(~failed.any(axis=0))
    rewards = rewards[candidates]
    gated = ""
    if gates:
        took = in_words(count_failures(gates, failed))
        gated = f"; of {table.num_rows} rows the gate {took}"
        print(f"{options.file}: {len(rewards)} rows to select from{gated}")
    if len(rewards) < options.k:
        raise InputError(
            f"{options.file}: has {len(rewards)} rows, fewer than k={options.k}{gated}; lower k or "
            f"{'loosen the gates' if gates else 'give more rows'}"
        )
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
    columns = selection_columns(selection, candidates)
    rows = table.take(columns["row_id"])
    check_kept(rows, columns, options.file)
    others = {name: rows[name] for name in rows.column_names if name not in columns}
    write_table(options.out, with_messages(pa.table(columns | others)))
    ranks = np.asarray(selection.ranks)
    print(
        f"{options.out}: {options.k} rows for each of {len(preferences)} preferences, "
        f"{np.unique(columns['row_id']).size} different ones, from a pool of {(ranks >= 0).sum()} "
        f"in {ranks.max() + 1} layers"
    )
    if advice := pool_advice(selection, options.rule, min(pool, len(rewards))):
        print(f"warning: {advice}")
    if options.plot:
        panels = selection_panels(objectives, preferences, rewards, selection)
        plot_panels(options.plot, panels, len(objectives))
