"""Where rows come from: embedded data, files, and the user's own functions."""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.rows import check_texts, drop_duplicates, read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.user_functions import find_function

logger = logging.getLogger(__name__)


def quickstart_rows() -> pa.Table:
    """Everyday prompts with several responses each, sampled from SmolLM2-135M-Instruct.

    Written by `paretohqd sample`; README says how to make it again.
    """
    assets = importlib.resources.files("paretohqd_jax.data") / "assets"
    with importlib.resources.as_file(assets / "quickstart.parquet") as path:
        return read_table(path)


SOURCES = {"quickstart": quickstart_rows}


def load_rows(source: str) -> pa.Table:
    """Checked rows `prompt`, `response` and `source_row`, exact duplicates dropped.

    Other columns are left out, so that none can be taken for one of ours. `source_row` (int64)
    counts the rows of the source, for messages and for finding a row again.

    Args:
      source: a name in SOURCES, "package.module:function" (a function without arguments that
        returns a table or a list of dicts), or the path of a parquet, jsonl or csv file.

    Raises:
      InputError: the source cannot be found or its rows are not valid.
    """
    if source in SOURCES:
        table = SOURCES[source]()
    elif ":" in source:
        table = _rows_of_function(source)
    else:
        table = read_table(source)
    check_texts(table, source)
    numbers = pa.array(range(table.num_rows), pa.int64())
    table = table.select(["prompt", "response"]).append_column("source_row", numbers)
    unique = drop_duplicates(table)
    if unique.num_rows < table.num_rows:
        logger.info("%s: %d duplicate rows dropped", source, table.num_rows - unique.num_rows)
    return unique


def _rows_of_function(source: str) -> pa.Table:
    option = f"data.source={source!r}"
    table = _as_table(find_function(source, option)(), option)
    if table.num_rows == 0:
        raise InputError(f"{option}: returned no rows")
    return table


def _as_table(rows: object, option: str) -> pa.Table:
    """What a user's function returned, as a table; `option` begins the message if it is none."""
    if isinstance(rows, pa.Table):
        return rows
    due = "it must return a pyarrow table, or a list of dicts with texts as keys"
    if not isinstance(rows, list):
        raise InputError(f"{option}: returned {type(rows).__name__}; {due}")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            raise InputError(f"{option}: returned a list whose row {number} is {row!r:.80}; {due}")
    try:
        return pa.Table.from_pylist(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{option}: returned rows that make no table ({reason}); {due}") from error


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
