"""Where rows come from: embedded data, files, and the user's own functions."""

from __future__ import annotations

import importlib.resources
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.columns import table_of
from paretohqd_jax.data.hub import is_hub_name, read_dataset
from paretohqd_jax.data.messages import all_conversations, read_conversations
from paretohqd_jax.data.pairs import pairs_of, rows_of, text_columns, without_equal
from paretohqd_jax.data.public import PUBLIC_FORMATS
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import (
    FORMATS,
    TEXTS,
    check_columns,
    check_texts,
    drop_duplicates,
    plain_texts,
    read_table,
    source_rows,
)
from paretohqd_jax.data.scores import given_rewards
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import local_path
from paretohqd_jax.user_functions import call, find_function

logger = logging.getLogger(__name__)


def quickstart_rows() -> pa.Table:
    """Everyday prompts with several responses each, sampled from SmolLM2-135M-Instruct.

    Written by `paretohqd sample`; docs/data.md says how to make them again.
    """
    assets = importlib.resources.files("paretohqd_jax.data") / "assets"
    with importlib.resources.as_file(assets / "quickstart.parquet") as path:
        return read_table(path)


SOURCES = {"quickstart": quickstart_rows}


def check_source(source: str) -> None:
    """Raises InputError unless `source` is there, or has the form of a function or hub name."""
    source = os.path.expanduser(source)
    if "://" in source:
        raise InputError(
            f"config.data.source={source!r}: addresses are not read; download the file, or give "
            "organisation/name of a data set on the Hugging Face hub"
        )
    if source in SOURCES or ":" in source or local_path(source):
        return
    if source.endswith(FORMATS) or not is_hub_name(source):
        raise InputError(
            f"config.data.source={source!r}: no such file or directory; give a file "
            f"({', '.join(FORMATS)}), a directory, organisation/name on the Hugging Face hub, "
            f"package.module:function, or one of {', '.join(SOURCES)}"
        )


def load_rows(
    source: str,
    format: str = "plain",
    columns: str = "",
    split: str = "train",
    revision: str = "",
    scores: str = "",
    gate_columns: Sequence[str] = (),
) -> pa.Table:
    """Checked rows `prompt`, `response` and `source_row`, exact duplicates dropped.

    Objectives named by `scores` (see `given_rewards`) follow as columns of float64, then
    `gate_columns`, which hold numbers. Other columns are left out, so that none can be taken for
    one of ours. The other arguments are those of `read_source`; pairs give two rows each.

    Raises:
      InputError: the source cannot be found or its rows are not valid.
    """
    table = rows_of(read_source(source, format, columns, split, revision))
    rewards = given_rewards(table, scores, source)
    for name in gate_columns:
        if name not in table.column_names:
            others = [other for other in table.column_names if other != "source_row"]
            raise InputError(
                f"config.select.gates: {name!r} is no objective, no scorer and no column of "
                f"{source}, which has {', '.join(map(repr, others))}"
            )
        rewards_matrix(table, [name], source, source_rows(table))
    table = table.select(["prompt", "response", "source_row", *gate_columns])
    for objective, values in rewards.items():
        table = table.append_column(objective, pa.array(values))
    unique = drop_duplicates(table)
    if unique.num_rows < table.num_rows:
        logger.info("%s: %d duplicate rows dropped", source, table.num_rows - unique.num_rows)
    return unique


def load_pairs(
    source: str,
    format: str = "plain",
    columns: str = "",
    split: str = "train",
    revision: str = "",
) -> pa.Table:
    """Checked pairs `prompt`, `chosen`, `rejected`, a label per objective, and `source_row`.

    Arguments as of `read_source`; scored rows give every pair of responses to one prompt.

    Raises:
      InputError: the source cannot be found or its pairs are not valid.
    """
    return pairs_of(read_source(source, format, columns, split, revision), source)


def read_source(source: str, format: str, columns: str, split: str, revision: str) -> pa.Table:
    """A source as scored rows or as pairs, whichever it holds; the options of `config.data`.

    Args:
      source: a name in SOURCES, "package.module:function" (a function without arguments that
        returns a table or a list of dicts), the path of a parquet, jsonl or csv file, or a
        directory or hub name for the datasets library.
      format: "plain", texts or lists of messages (see `messages`), or a name in PUBLIC_FORMATS for
        a set in fields of its own.
      columns: new names as "prompt=question,helpful=score2", ours first.
      split, revision: of a directory or hub name.

    Returns:
      The table with an int64 column `source_row` that counts the rows of the source, for messages
      and for finding a row again. Prompts may be conversations (see `conversations`).

    Raises:
      InputError: the source cannot be found or read, `columns` names one that is not there, or a
        text is missing, blank or no text; messages count the rows of the source.
    """
    source = os.path.expanduser(source)
    texts = [*TEXTS, *(theirs for theirs, ours in parse_columns(columns).items() if ours in TEXTS)]
    if source in SOURCES:
        table = SOURCES[source]()
    elif ":" in source:
        table = _rows_of_function(source)
    elif Path(source).is_dir() or (is_hub_name(source) and not Path(source).exists()):
        table = read_dataset(source, split, revision, texts)
    else:
        table = read_table(source, texts)
    if format == "plain":
        others = [name for name in table.column_names if name != "source_row"]
        numbers = pa.array(range(table.num_rows), pa.int64())
        table = table.select(others).append_column("source_row", numbers)
    else:
        table = PUBLIC_FORMATS[format](table, source)
    table = rename_columns(table, columns, source)
    if format == "plain":
        table = read_conversations(table, source)
    check_texts(table, source, text_columns(table))
    return all_conversations(without_equal(table, source))


def parse_columns(columns: str) -> dict[str, str]:
    """The new name of each column that "ours=theirs,..." gives one; raises InputError."""
    new_names = {}
    for entry in filter(None, (part.strip() for part in columns.split(","))):
        ours, equals, theirs = (part.strip() for part in entry.partition("="))
        if not (ours and equals and theirs):
            raise InputError(f"config.data.columns={columns!r}: write it like 'prompt=question'")
        if theirs in new_names or ours in new_names.values():
            raise InputError(f"config.data.columns={columns!r}: name each column once")
        if ours == "source_row":
            raise InputError(f"config.data.columns={columns!r}: {ours} counts the source's rows")
        new_names[theirs] = ours
    return new_names


def rename_columns(table: pa.Table, columns: str, source: str) -> pa.Table:
    """Gives columns new names, as "ours=theirs,..."; one that had a new name before is dropped."""
    new_names = parse_columns(columns)
    check_columns(table, list(new_names), f"config.data.columns={columns!r}: {source}")
    replaced = set(new_names.values()) - set(new_names)
    table = table.drop_columns([name for name in table.column_names if name in replaced])
    return table.rename_columns([new_names.get(name, name) for name in table.column_names])


def _rows_of_function(source: str) -> pa.Table:
    option = f"data.source={source!r}"
    table = _as_table(call(find_function(source, option), option), option)
    if table.num_rows == 0:
        raise InputError(f"{option}: returned no rows")
    return table


def _as_table(rows: object, option: str) -> pa.Table:
    """What a user's function returned, as a table; `option` begins the message if it is none."""
    due = "it must return a pyarrow table, or a list of dicts with texts as keys"
    if not isinstance(rows, (list, pa.Table)):
        raise InputError(f"{option}: returned {type(rows).__name__}; {due}")
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            raise InputError(f"{option}: returned a list whose row {number} is {row!r:.80}; {due}")
    try:
        return table_of(rows) if isinstance(rows, list) else plain_texts(rows)
    except ValueError as error:
        raise InputError(f"{option}: returned rows that make no table ({error}); {due}") from error


def split_by_prompt(prompts: Sequence[str], num_test_prompts: int, seed: int) -> np.ndarray:
    """Marks the rows of `num_test_prompts` random prompts as held out, bool `[num_rows]`.

    Whole prompts are held out, never single rows: responses to one prompt resemble each other.

    Raises:
      InputError: there are not more prompts than that.
    """
    column = pa.array(prompts)
    unique = pc.unique(column)
    if len(unique) <= num_test_prompts:
        raise InputError(
            f"config.data.num_test_prompts={num_test_prompts}: the data have only "
            f"{len(unique)} different prompts; hold out fewer"
        )
    held_out = np.random.default_rng(seed).permutation(len(unique))[:num_test_prompts]
    return pc.is_in(column, value_set=unique.take(held_out)).to_numpy(zero_copy_only=False)
