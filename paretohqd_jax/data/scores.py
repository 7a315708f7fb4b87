"""Scores that come with the data, as rewards: which column is which objective.

They are written "helpful=log_odds(win_rate),brief=brevity": the objective, then the column that
holds it, as it is or through a function of TRANSFORMS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.reward_columns import rewards_matrix, row_name
from paretohqd_jax.data.rows import source_rows
from paretohqd_jax.errors import InputError

CLIP = 1e-7  # a judge's probabilities closer than this to 0 or 1 count as this close
ENTRY = re.compile(
    r"(?P<objective>[^=]+)=(?:(?P<transform>\w+)\((?P<inner>[^()]+)\)|(?P<column>[^()]+))"
)


def parse_scores(text: str) -> dict[str, tuple[str, str]]:
    """The column of each objective and the name of its transform, "" for none.

    Raises:
      InputError: the text is not written like "helpful=log_odds(win_rate)".
    """
    scores = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = ENTRY.fullmatch(entry)
        objective, transform, inner, column = match.groups("") if match else [""] * 4
        if not objective or transform not in ("", *TRANSFORMS) or objective in scores:
            raise InputError(
                f"config.data.scores={text!r}: write OBJECTIVE=COLUMN or "
                f"OBJECTIVE=TRANSFORM(COLUMN), each objective once; transforms are "
                f"{', '.join(TRANSFORMS)}"
            )
        scores[objective] = (column or inner, transform)
    return scores


def given_rewards(
    table: pa.Table, scores: str, source: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
    """The rewards `[num_rows]` of each objective in `scores` (see `parse_scores`).

    Raises:
      InputError: a column is missing, or a value is no number that its transform takes; the message
        names the file, the column and the row.
    """
    rewards = {}
    for objective, (column, transform) in parse_scores(scores).items():
        row_ids = source_rows(table)
        values = rewards_matrix(table, [column], source, row_ids)[:, 0]
        if transform:
            values = TRANSFORMS[transform](values, column, source, row_ids)
        rewards[objective] = values
    return rewards


def log_odds(
    values: np.ndarray,
    column: str,
    source: str | os.PathLike[str],
    row_ids: Sequence[int] | None = None,
) -> np.ndarray:
    """log(p / (1 - p)) of probabilities `[num_rows]`, clipped to CLIP and 1 - CLIP.

    Raises InputError naming the first row of `column` that holds no probability, by `row_ids` if
    they do not count from 0.
    """
    strange = np.flatnonzero((values < 0) | (values > 1))
    if strange.size:
        first = strange[0]
        raise InputError(
            f"{source}: row {row_name(first, row_ids)}: {column!r} is {values[first]}, no "
            f"probability ({strange.size} such values); log-odds need numbers in [0, 1]"
        )
    clipped = np.clip(values, CLIP, 1 - CLIP)
    return np.log(clipped / (1 - clipped))


TRANSFORMS = {"log_odds": log_odds}
