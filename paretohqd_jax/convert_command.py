"""The command `paretohqd convert`: any data source as a file of rows or pairs."""

from __future__ import annotations

import argparse

from paretohqd_jax.data.messages import with_messages
from paretohqd_jax.data.pairs import check_conflict, rows_of, sample_conflict
from paretohqd_jax.data.rows import write_table
from paretohqd_jax.data.sources import check_source, load_pairs, read_source
from paretohqd_jax.errors import InputError


def convert_command(options: argparse.Namespace) -> None:
    """Writes a data set as scored rows, or as preference pairs with a label per objective.

    Prompts that are conversations are written as lists of messages.
    """
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
