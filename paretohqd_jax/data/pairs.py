"""Preference pairs: two responses to one prompt, and which is the better one on each objective.

Columns `prompt`, `chosen`, `rejected` and one label per objective: +1 where the chosen response is
the better one, -1 where the rejected one is, 0 where neither is or none knows. A pair whose labels
differ in sign is in conflict: its objectives disagree.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.reward_columns import rewards_matrix, row_name
from paretohqd_jax.data.rows import check_columns, source_rows
from paretohqd_jax.errors import InputError

PLACES = ["chosen_row", "rejected_row"]
NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)

logger = logging.getLogger(__name__)


def score_names(table: pa.Table) -> list[str]:
    """The columns of numbers, in order: scores of rows, or labels of pairs."""
    return [
        field.name
        for field in table.schema
        if field.name != "source_row" and any(is_kind(field.type) for is_kind in NUMBERS)
    ]


def text_columns(table: pa.Table) -> list[str]:
    """The columns of text that rows or pairs must have."""
    names = set(table.column_names)
    responses = ["chosen", "rejected"] if {"chosen", "rejected"} <= names else []
    if not responses or "response" in names:
        responses.append("response")
    return ["prompt", *responses]


def without_equal(table: pa.Table, source: str) -> pa.Table:
    """Pairs without those whose responses are the same text, which are counted. Rows as is.

    Raises InputError if no pair is left.
    """
    if not {"chosen", "rejected"} <= set(table.column_names):
        return table
    pairs = table.filter(pc.not_equal(table["chosen"], table["rejected"]))
    num_equal = table.num_rows - pairs.num_rows
    if not num_equal:
        return table
    if not pairs.num_rows:
        raise InputError(f"{source}: chosen and rejected are the same text in every pair")
    logger.info("%s: %d pairs of two equal responses left out", source, num_equal)
    return pairs


def rows_of(table: pa.Table) -> pa.Table:
    """Pairs as rows `prompt`, `response`: the chosen and the rejected one in turn. Rows as is."""
    if not {"chosen", "rejected"} <= set(table.column_names) or "response" in table.column_names:
        return table
    twice = np.repeat(np.arange(table.num_rows), 2)
    responses = itertools.chain.from_iterable(
        zip(table["chosen"].to_pylist(), table["rejected"].to_pylist(), strict=True)
    )
    kept = [name for name in ("prompt", "source_row", "split") if name in table.column_names]
    rows = table.select(kept).take(twice)
    return rows.append_column("response", pa.array(list(responses), table["chosen"].type))


def pairs_of(table: pa.Table, source: str) -> pa.Table:
    """Scored rows as pairs: any two responses to one prompt, wherever their rows stand.

    Every column of numbers becomes a label. Where two responses tie on all of them, or are the same
    text, there is no pair. `chosen` is the better one on the first objective that does not tie.
    Pairs as is.

    Raises:
      InputError: there is no column of numbers, or no two responses to one prompt differ.
    """
    if {"chosen", "rejected"} <= set(table.column_names):
        return table
    names = score_names(table)
    if not names:
        raise InputError(f"{source}: has no column of numbers to make preference pairs from")
    return compare_rows(table, names, [0.0] * len(names), source).drop_columns(PLACES)


def compare_rows(
    table: pa.Table, names: Sequence[str], margins: Sequence[float], source: str | Path
) -> pa.Table:
    """As `pairs_of`, of the columns `names` alone, with the rows that a pair was made of.

    Args:
      table: scored rows.
      names: of columns of numbers.
      margins: for each of them, the largest difference that is a tie.
      source: for messages.

    Returns:
      The pairs, with the columns PLACES, which count the table's rows.

    Raises:
      InputError: no two responses to one prompt differ.
    """
    rows_of_prompt = defaultdict(list)
    for row, prompt in enumerate(table["prompt"].to_pylist()):
        rows_of_prompt[prompt].append(row)
    every = [pair for rows in rows_of_prompt.values() for pair in itertools.combinations(rows, 2)]
    first, second = np.array(every, np.int64).reshape(-1, 2).T
    labels = [
        _compare(table[name], first, second, margin)
        for name, margin in zip(names, margins, strict=True)
    ]
    labels = np.stack(labels, axis=1)
    texts = table["response"].combine_chunks().dictionary_encode().indices.to_numpy()
    differ = labels.any(axis=1) & (texts[first] != texts[second])
    if not differ.any():
        raise InputError(f"{source}: no two responses to one prompt differ in {', '.join(names)}")
    first, second, labels = first[differ], second[differ], labels[differ]
    leading = labels[np.arange(len(labels)), (labels != 0).argmax(axis=1)]
    chosen, rejected = np.where(leading > 0, (first, second), (second, first))
    columns = {
        "prompt": table["prompt"].take(first),
        "chosen": table["response"].take(chosen),
        "rejected": table["response"].take(rejected),
    }
    columns |= dict(zip(names, labels.T * leading, strict=True))
    for name in ("source_row", "split"):
        if name in table.column_names:
            columns[name] = table[name].take(first)
    return pa.table(columns | dict(zip(PLACES, (chosen, rejected), strict=True)))


def _compare(
    scores: pa.ChunkedArray, first: np.ndarray, second: np.ndarray, margin: float
) -> np.ndarray:
    """+1 where the first of two rows has the larger score, -1 the second, 0 where none knows.

    Scores that differ by `margin` or less are a tie.
    """
    known = scores.is_valid().to_numpy()
    numbers = scores.fill_null(0).to_numpy()  # exact, where a null would make float64 of integers
    larger, smaller = numbers[first] > numbers[second], numbers[first] < numbers[second]
    if margin:
        close = np.abs(numbers[first] - numbers[second]) <= margin
        larger, smaller = larger & ~close, smaller & ~close
    return (known[first] & known[second]) * (larger.astype(np.int8) - smaller.astype(np.int8))


def label_matrix(pairs: pa.Table, names: Sequence[str], source: str | Path) -> np.ndarray:
    """The columns `names` as labels, int8 `[num_pairs, num_objectives]`; none is 0: none knows.

    Raises:
      InputError: a column is missing, a label is not -1, 0 or 1, or an objective has none but 0;
        the message names the source, the row and the column.
    """
    check_columns(pairs, names, source)
    row_ids = source_rows(pairs)
    columns = []
    for name in names:
        labels = pairs[name]
        if pa.types.is_null(labels.type):  # not one of them is known
            labels = labels.cast(pa.int8())
        elif not any(is_kind(labels.type) for is_kind in NUMBERS):
            raise InputError(
                f"{source}: the labels {name!r} are {labels.type}, no numbers; write 1 where the "
                "chosen response is better, -1 where the rejected one is, and 0 where neither is"
            )
        known = pairs.select([name]).set_column(0, name, labels.fill_null(0))
        values = rewards_matrix(known, [name], source, row_ids)[:, 0]
        strange = np.flatnonzero(~np.isin(values, (-1, 0, 1)))
        if strange.size:
            first = strange[0]
            raise InputError(
                f"{source}: row {row_name(first, row_ids)}: the label {name!r} is "
                f"{values[first]:g}, not -1, 0 or 1 ({strange.size} such rows); labels say which "
                "response is better, 1 the chosen one and -1 the rejected one"
            )
        columns.append(values.astype(np.int8))
    return np.stack(columns, axis=1)


def in_conflict(pairs: pa.Table, names: Sequence[str] | None = None) -> np.ndarray:
    """Which pairs have labels of both signs, bool `[num_pairs]`.

    `names` are the columns of labels; by default every column of numbers.
    """
    labels = np.stack([pairs[name].to_numpy() for name in names or score_names(pairs)])
    return (labels.max(axis=0) > 0) & (labels.min(axis=0) < 0)


def count_labels(labels: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """By objective: how many of its `pairs` are decided, `ties`, and in `conflict` with another.

    `labels` are int8 `[num_pairs, num_objectives]`.
    """
    against = [((labels * -column[:, None]) > 0).any(axis=1) for column in labels.T]
    return {
        name: {
            "pairs": int((column != 0).sum()),
            "ties": int((column == 0).sum()),
            "conflicts": int(opposed.sum()),
        }
        for name, column, opposed in zip(names, labels.T, against, strict=True)
    }


def limit_per_prompt(pairs: pa.Table, most: int, seed: int) -> pa.Table:
    """At most so many random pairs of each prompt, in their order."""
    prompts = pairs["prompt"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.random.default_rng(seed).permutation(len(prompts))
    by_prompt = order[np.argsort(prompts[order], kind="stable")]
    starts = np.r_[True, np.diff(prompts[by_prompt]) != 0]
    positions = np.arange(len(prompts))
    place = positions - np.maximum.accumulate(np.where(starts, positions, 0))
    return pairs.take(np.sort(by_prompt[place < most]))


def check_conflict(fraction: float, seed: int) -> None:
    """Raises InputError unless `sample_conflict` can draw that share with that seed."""
    if not 0 <= fraction <= 1 or seed < 0:
        raise InputError(
            f"conflict fraction {fraction}, seed {seed}: give a share in [0, 1] and a seed >= 0"
        )


def sample_conflict(
    pairs: pa.Table, fraction: float, seed: int, names: Sequence[str] | None = None
) -> pa.Table:
    """Random pairs, `fraction` of them in conflict (SIPO, arXiv 2502.14354).

    As many as the rarer kind has, so that every fraction gives the same number of pairs; shuffled.
    `names` as of `in_conflict`.

    Raises:
      InputError: the fraction is not in [0, 1], the seed is below 0, or there are no pairs of one
        kind.
    """
    check_conflict(fraction, seed)
    conflict = in_conflict(pairs, names)
    kinds = [np.flatnonzero(conflict), np.flatnonzero(~conflict)]
    total = min(map(len, kinds))
    if total == 0:
        raise InputError(
            f"conflict fraction {fraction}: needs pairs of both kinds; {len(kinds[0])} of "
            f"{len(conflict)} pairs are in conflict; give some of either kind, or no fraction"
        )
    random = np.random.default_rng(seed)
    counts = round(total * fraction), total - round(total * fraction)
    chosen = [random.permutation(rows)[:count] for rows, count in zip(kinds, counts, strict=True)]
    return pairs.take(random.permutation(np.concatenate(chosen)))
