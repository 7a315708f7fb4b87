"""The command `paretohqd convert`: any data source as a file of rows or pairs."""

from __future__ import annotations

import argparse

from paretohqd_jax.data.messages import with_messages
from paretohqd_jax.data.pairs import check_conflict, rows_of, sample_conflict
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.rows import check_writable, write_table
from paretohqd_jax.data.sources import check_source, load_pairs, read_source
from paretohqd_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="as config.data.source")
    parser.add_argument("--format", choices=("plain", *PUBLIC_FORMATS), default="plain")
    parser.add_argument("--columns", default="", help="new names: prompt=question,...")
    parser.add_argument("--split", default="train", help="of a directory or hub name")
    parser.add_argument("--revision", default="", help="of a hub name: a commit or tag")
    parser.add_argument("--pairs", action="store_true", help="preference pairs, not rows")
    parser.add_argument("--conflict", type=float, help="share of pairs whose labels disagree")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs that --conflict draws")
    parser.add_argument("--out", required=True, help="parquet, jsonl or csv to write")


def run(options: argparse.Namespace) -> None:
    """Writes a data set as scored rows, or as preference pairs with a label per objective.

    Prompts that are conversations are written as lists of messages.
    """
    check_writable(options.out)
    if options.conflict is not None:
        if not options.pairs:
            raise InputError("--conflict is a share of pairs; give --pairs with it")
        check_conflict(options.conflict, options.seed)
    check_source(options.source)
    where = (options.source, options.format, options.columns, options.split, options.revision)
    table = load_pairs(*where) if options.pairs else rows_of(read_source(*where))
    if options.conflict is not None:
        table = sample_conflict(table, options.conflict, options.seed)
    write_table(options.out, with_messages(table))
    print(f"{options.out}: {table.num_rows} rows with {', '.join(table.column_names)}")
