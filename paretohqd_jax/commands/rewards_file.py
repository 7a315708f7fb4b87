"""The file of scored rows that several commands read."""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.errors import InputError


def add_rewards(parser: argparse.ArgumentParser) -> None:
    """The file, and which of its columns are the objectives."""
    parser.add_argument("file", help="scored rows: parquet, jsonl or csv")
    parser.add_argument("--objectives", required=True, help="columns, larger is better: a,b,...")


def read_rewards(options: argparse.Namespace) -> tuple[pa.Table, np.ndarray, list[str]]:
    """The table of `options.file`, its rewards `[num_rows, num_objectives]`, and their names."""
    objectives = options.objectives.split(",")
    if len(set(objectives)) < len(objectives):
        raise InputError(f"--objectives {options.objectives}: name each column once")
    table = read_table(options.file)
    return table, rewards_matrix(table, objectives, options.file), objectives
