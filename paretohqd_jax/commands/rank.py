"""The command `paretohqd rank`: the non-dominated layers of scored rows."""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

from paretohqd_jax.commands.rewards_file import add_rewards, read_rewards
from paretohqd_jax.data.messages import with_messages
from paretohqd_jax.data.rows import check_kept, check_writable, write_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rewards(parser)
    parser.add_argument("--out", required=True, help="parquet, jsonl or csv to write")


def run(options: argparse.Namespace) -> None:
    """Adds each row's non-dominated layer, counted from 0, as the column `rank`."""
    from paretohqd_jax.pareto import non_dominated_rank

    check_writable(options.out)
    table, rewards, _ = read_rewards(options)
    ranks = np.asarray(non_dominated_rank(rewards))
    check_kept(table, {"rank": ranks}, options.file)
    if "rank" not in table.column_names:
        table = table.append_column("rank", pa.array(ranks))
    write_table(options.out, with_messages(table))
    print(f"{options.out}: {len(ranks)} rows in {ranks.max() + 1} non-dominated layers")
