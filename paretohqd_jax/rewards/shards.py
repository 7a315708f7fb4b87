"""Rows that are scored together, and what a scorer may return for them."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from paretohqd_jax.errors import InputError


class Shard(NamedTuple):
    """Rows that are scored together."""

    prompts: list[str]
    responses: list[str]
    row_ids: list[int]


def in_words(place: str, shard: Shard) -> str:
    """`place` and the rows of the shard, in words."""
    rows = f"row {shard.row_ids[0]} ({_beginning(shard.responses[0])})"
    if len(shard.row_ids) == 1:
        return f"{place}: {rows}"
    return f"{place}: a batch of {len(shard.row_ids)} rows, the first of which is {rows}"


def checked_rewards(values: object, place: str, shard: Shard) -> np.ndarray:
    """What a scorer returned, as float32 `[num_rows]`, or an InputError that says what is wrong."""
    start = f"{place}: the scorer returned"
    rows, responses = shard.row_ids, shard.responses
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{start} no array ({error}); one number per response is due") from error
    if array.shape != (len(rows),):
        raise InputError(
            f"{start} shape {array.shape} for {len(rows)} rows; it must return one number per "
            f"response, shape ({len(rows)},)"
        )
    if not (jnp.issubdtype(array.dtype, jnp.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(
            f"{start} {array.dtype} values, such as {array[0]!r} for row {rows[0]} "
            f"({_beginning(responses[0])}); it must return numbers"
        )
    with np.errstate(over="ignore"):
        rewards = array.astype(np.float32)
    if np.issubdtype(array.dtype, np.integer):
        pairs = zip(array.tolist(), rewards.tolist(), strict=True)
        rounded = [row for row, (value, reward) in enumerate(pairs) if value != reward]
        if rounded:
            first = rounded[0]
            raise InputError(
                f"{start} {array[first]} for row {rows[first]} ({_beginning(responses[first])}), "
                f"an integer that float32 does not hold ({len(rounded)} such rows in this batch); "
                "subtract what all have in common, or return floats, which are rounded"
            )
    bad = np.flatnonzero(~np.isfinite(rewards))
    if bad.size:
        first = bad[0]
        raise InputError(
            f"{start} {array[first]} for row {rows[first]} ({_beginning(responses[first])}), "
            f"not a finite float32 number ({bad.size} such rows in this batch); "
            "mend the scorer or remove these rows"
        )
    return rewards


def _beginning(response: str, num_characters: int = 40) -> str:
    short = response[:num_characters]
    return repr(short) + ("..." if len(response) > num_characters else "")
