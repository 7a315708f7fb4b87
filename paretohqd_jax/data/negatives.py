"""Corrupted answers as negatives: groups that teach a reward model what no answer may look like.

Real data compare fluent answers to one prompt, so that nothing in them tells what fluency or
relevance is. A group of negatives holds the better half of a real group and a corrupted copy of
each, below them all; a pair becomes the chosen response and its copy. Such groups come on top of
the real ones, and no response is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.corruptions import (
    CORRUPTIONS,
    Answer,
    corrupt,
    rows_of_other_prompts,
)
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)
KINDS = tuple(kind for kind in CORRUPTIONS if kind != "temperature_2")  # texts from elsewhere


def parse_negatives(texts: Sequence[str]) -> dict[str, float]:
    """The share of each kind that is written like "shuffled=0.25".

    Raises:
      InputError: one is not written so, is of an unknown kind, is there twice, or its share is not
        in [0, 1].
    """
    shares: dict[str, float] = {}
    for text in texts:
        kind, _, number = text.partition("=") if isinstance(text, str) else ("", "", "")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if kind not in KINDS or kind in shares or not 0 <= share <= 1:
            raise InputError(
                f"config.data.negatives: {text!r} will not do; write KIND=SHARE with a share in "
                f"[0, 1], such as 'shuffled=0.25', each kind once, of {', '.join(KINDS)}"
            )
        shares[kind] = share
    return shares


def with_negatives(
    groups: pa.Table, shares: Mapping[str, float], margin: float, seed: int
) -> pa.Table:
    """Groups (see `data.groups`) with groups of negatives for training behind them.

    Copies score the same, 2 `margin` below the worst of their group's real responses, so that they
    make pairs with all of these and none with each other. They are made of training groups alone.

    Args:
      groups: of one size in training.
      shares: by kind, how many groups of negatives there are to each real group of training.
      margin: responses whose scores differ by less make no pair.
      seed: of the choice of groups, and of what is random in a copy.
    """
    train = groups.filter(pc.equal(groups["split"], "train")).to_pylist()
    others = rows_of_other_prompts([group["prompt"] for group in train], seed)
    made = []
    for number, (kind, share) in enumerate(shares.items()):
        before, wanted = len(made), round(share * len(train))
        for row in np.random.default_rng([seed, number]).permutation(len(train)):
            if len(made) - before == wanted:
                break
            other = train[others[row]] if others[row] is not None else None
            group = _negatives(kind, train[row], other, margin, seed)
            made += [group] if group else []
        logger.info("negatives: %d groups of %s", len(made) - before, kind)
        if len(made) - before < wanted:
            logger.warning(
                "negatives: %s: %d groups were due; the copies of all others are no change",
                kind, wanted,
            )  # fmt: skip
    added = pa.Table.from_pylist(made, schema=groups.schema)
    return pa.concat_tables([groups, added])


def _negatives(kind: str, group: dict, other: dict | None, margin: float, seed: int) -> dict | None:
    """The better half of a group and as many copies; None where one copy would be no change."""
    order = np.argsort(group["scores"], kind="stable")[::-1]
    num_copies = len(order) // 2
    kept = order[: len(order) - num_copies]
    responses = [group["responses"][row] for row in kept]
    elsewhere = other["responses"] if other else [""] * len(order)
    copies = [
        corrupt(kind, Answer(group["prompt"], response, elsewhere[row]), seed)
        for row, response in enumerate(responses[:num_copies])
    ]
    if None in copies:
        return None
    scores = [group["scores"][row] for row in kept]
    below = min(scores) - 2 * margin
    return group | {"responses": responses + copies, "scores": scores + [below] * num_copies}
