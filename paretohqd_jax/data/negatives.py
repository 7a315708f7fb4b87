"""Corrupted answers as negatives: they teach a reward model what no answer may look like.

Real data compare fluent answers to one prompt, so that nothing in them tells what fluency or
relevance is. So groups of responses get corrupted copies of their better ones, of a few kinds each,
no better than the worst.
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
from paretohqd_jax.data.groups import TRAIN
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)
KINDS = tuple(kind for kind in CORRUPTIONS if kind != "temperature_2")  # texts from elsewhere


def parse_negatives(texts: Sequence[str]) -> dict[str, float]:
    """The share of each kind that is written like "shuffled=0.5".

    Raises:
      InputError: one is not written so, is of an unknown kind, is there twice, or its share is not
        in [0, 1]; or the shares do not add up to a whole number.
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
                f"[0, 1], such as 'shuffled=0.5', each kind once, of {', '.join(KINDS)}"
            )
        shares[kind] = share
    total = sum(shares.values())
    if abs(total - round(total)) > 1e-6:
        raise InputError(
            f"config.data.negatives: the shares add up to {total:g}, which is how many copies a "
            "group gets; make it a whole number"
        )
    return shares


def with_negatives(groups: pa.Table, shares: Mapping[str, float], seed: int) -> pa.Table:
    """Groups (see `data.groups`) of which those for training have corrupted copies besides.

    A group gets as many copies as the shares add up to, each of another kind and of one of the
    better half of its responses, the best first. Copies score what the worst of their group's real
    responses does, so that they make pairs with all better ones, and none with each other or with
    the worst, which may be no better. Where a copy would be no change another kind steps in; a
    group that has too few is left out, so that all stay of one size.

    Args:
      groups: of one size in training.
      shares: by kind, the share of training groups that have such a copy.
      seed: of the choice of kinds, and of what is random in a copy.
    """
    num_copies = round(sum(shares.values()))
    if not num_copies:
        return groups
    is_train = pc.equal(groups["split"], TRAIN)
    train = [_best_first(group) for group in groups.filter(is_train).to_pylist()]
    others = rows_of_other_prompts([group["prompt"] for group in train], seed)
    made = []
    for number, (group, row) in enumerate(zip(train, others, strict=True)):
        other = [""] * len(group["responses"]) if row is None else train[row]["responses"]
        kinds = _drawn(shares, num_copies, np.random.default_rng([seed, number]))
        copies = _copies(kinds, group, other, num_copies, seed)
        if len(copies) == num_copies:
            made.append(
                group
                | {
                    "responses": group["responses"] + copies,
                    "scores": group["scores"] + [min(group["scores"])] * num_copies,
                }
            )
    logger.info("negatives: %d copies in each of %d groups", num_copies, len(made))
    if len(made) < len(train):
        logger.warning(
            "negatives: %d groups left out: too few copies of their responses are a change",
            len(train) - len(made),
        )
    held_out = groups.filter(pc.invert(is_train))
    return pa.concat_tables([pa.Table.from_pylist(made, schema=groups.schema), held_out])


def _best_first(group: dict) -> dict:
    order = np.argsort(group["scores"], kind="stable")[::-1]
    return group | {name: [group[name][row] for row in order] for name in ("responses", "scores")}


def _drawn(shares: Mapping[str, float], number: int, random: np.random.Generator) -> list[str]:
    """All kinds in random order, but first `number` of them, each with its share as probability.

    That is systematic sampling: with kinds laid one behind the other, each as long as its share,
    those are taken that lie at u, u + 1, u + 2, ..., with u uniform in [0, 1).
    """
    kinds = [kind for kind in shares if shares[kind] > 0]
    order = [kinds[place] for place in random.permutation(len(kinds))]
    ends = np.cumsum([shares[kind] for kind in order])
    places = np.searchsorted(ends, random.uniform() + np.arange(number), side="right")
    first = [order[place] for place in np.minimum(places, len(order) - 1)]
    return first + [kind for kind in order if kind not in first]


def _copies(
    kinds: Sequence[str], group: dict, other: Sequence[str], number: int, seed: int
) -> list[str]:
    """Up to `number` copies of the better half of a group, of the first kinds that change it."""
    better = (len(group["responses"]) + 1) // 2
    copies: list[str] = []
    for kind in kinds:
        row = len(copies) % better
        copy = corrupt(kind, Answer(group["prompt"], group["responses"][row], other[row]), seed)
        if copy is not None and len(copies) < number:
            copies.append(copy)
    return copies
