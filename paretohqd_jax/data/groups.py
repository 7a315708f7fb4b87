"""Groups of responses to one prompt, with a score each: what a reward model learns from.

Columns `prompt`, `responses` (a list of texts), `scores` (as many numbers, larger is better) and
`split`, "train", "validation" or "test". A preference pair is a group of two.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.conversations import dialogue, is_conversation, messages_of
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import check_columns, source_rows
from paretohqd_jax.data.scores import log_odds as log_odds_of
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)


TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"


class Split(NamedTuple):
    """Which prompts are for what, by a hash of their text alone, whatever else the data hold.

    In the order of the hash, a number in [0, 1), the first `validation_share` of all prompts are
    for choosing options, the next `test_share` to report on, and of those that follow the part
    from `train_part[0]` to `train_part[1]` to learn from.
    """

    validation_share: float
    test_share: float
    train_part: tuple[float, float] = (0.0, 1.0)

    def part(self, prompt: str) -> str:
        """VALIDATION, TEST, TRAIN or UNUSED.

        Of a conversation it is the `dialogue` that counts, which HH-RLHF's prompts were before
        turns were told apart: reward models that were trained then keep their test prompts.
        """
        text = dialogue(messages_of(prompt)) if is_conversation(prompt) else prompt
        place = int(hashlib.sha256(text.strip().encode()).hexdigest()[:8], 16) / 16**8
        held_out = self.validation_share + self.test_share
        if place < held_out:
            return VALIDATION if place < self.validation_share else TEST
        low, high = self.train_part
        return TRAIN if low <= (place - held_out) / (1 - held_out) < high else UNUSED


def group_responses(
    table: pa.Table,
    *,
    score: str,
    log_odds: bool,
    group_size: int,
    groups_per_prompt: int,
    validation_share: float,
    test_share: float,
    train_part: Sequence[float],
    test_size: int,
    drop_shared: bool,
    seed: int,
    source: str,
) -> pa.Table:
    """Pairs or scored rows as groups, split by prompt.

    Args:
      table: columns `prompt`, `chosen`, `rejected` (see `pairs`), or `prompt`, `response`, `score`.
      score: the column of scores; of pairs, that of labels, "" if the chosen one is always better.
        Rows without a score are left out.
      log_odds: the scores are probabilities, whose logarithmic odds are meant.
      group_size: responses of a training group; of pairs always two.
      groups_per_prompt: at most as many training groups of a prompt; no response is in two.
      validation_share, test_share, train_part: see `Split`; groups of unused prompts are left out.
      test_size: at most as many responses to a held out prompt, in one group.
      drop_shared: scored rows of `shared_responses` are left out.
      seed: of the choice of responses.
      source: for messages.

    Raises:
      InputError: the table does not fit, or there is no group.
    """
    is_pairs = {"chosen", "rejected"} <= set(table.column_names)
    if drop_shared and not is_pairs:
        table = _without_shared(table, source)
    split = Split(validation_share, test_share, (train_part[0], train_part[1]))
    part_of = {prompt: split.part(prompt) for prompt in set(table["prompt"].to_pylist())}
    used = [part_of[prompt] != UNUSED for prompt in table["prompt"].to_pylist()]
    table = table.filter(pa.array(used, pa.bool_()))
    if is_pairs:
        groups = _groups_of_pairs(table, score, source)
    else:
        groups = _groups_of_rows(
            table, score, log_odds, group_size, groups_per_prompt, test_size, part_of, seed, source
        )
    if not groups:
        raise InputError(f"{source}: no prompt has responses to compare, {group_size} for training")
    parts = [part_of[group["prompt"]] for group in groups]
    return pa.Table.from_pylist(groups).append_column("split", pa.array(parts))


def shared_responses(rows: Iterable[tuple[str, str]]) -> set[str]:
    """Of (prompt, response), the responses of three prompts or more, which are answers to none.

    Such as a constant text that was made to fool a judge.
    """
    prompts_of = defaultdict(set)
    for prompt, response in rows:
        prompts_of[response].add(prompt)
    return {response for response, prompts in prompts_of.items() if len(prompts) >= 3}


def _without_shared(table: pa.Table, source: str) -> pa.Table:
    responses = table["response"].to_pylist()
    shared = shared_responses(zip(table["prompt"].to_pylist(), responses, strict=True))
    kept = table.filter(pa.array([text not in shared for text in responses], pa.bool_()))
    logger.info(
        "%s: %d rows left out, whose responses three or more prompts have",
        source, table.num_rows - kept.num_rows,
    )  # fmt: skip
    return kept


def _groups_of_pairs(table: pa.Table, score: str, source: str) -> list[dict]:
    labels = np.ones(table.num_rows)
    if score:
        labels = rewards_matrix(table, [score], source, source_rows(table))[:, 0]
    if not labels.all():
        logger.info("%s: %d pairs without a preference left out", source, (labels == 0).sum())
    rows = table.select(["prompt", "chosen", "rejected"]).to_pylist()
    return [
        {
            "prompt": row["prompt"],
            "responses": [row["chosen"], row["rejected"]],
            "scores": [1.0, 0.0] if label > 0 else [0.0, 1.0],
        }
        for row, label in zip(rows, labels, strict=True)
        if label
    ]


def _groups_of_rows(
    table: pa.Table,
    score: str,
    log_odds: bool,
    group_size: int,
    groups_per_prompt: int,
    test_size: int,
    part_of: Mapping[str, str],
    seed: int,
    source: str,
) -> list[dict]:
    check_columns(table, [score], source)
    missing = table[score].null_count
    if 0 < missing < table.num_rows:  # such as UltraFeedback's "N/A"
        logger.info("%s: %d rows without %s left out", source, missing, score)
        table = table.filter(pc.is_valid(table[score]))
    row_ids = source_rows(table)
    scores = rewards_matrix(table, [score], source, row_ids)[:, 0]
    if log_odds:
        scores = log_odds_of(scores, score, source, row_ids)
    rows_of_prompt = defaultdict(list)
    for row, prompt in enumerate(table["prompt"].to_pylist()):
        rows_of_prompt[prompt].append(row)
    responses = table["response"].to_pylist()
    random = np.random.default_rng(seed)
    groups = []
    for prompt in sorted(rows_of_prompt):
        rows = random.permutation(rows_of_prompt[prompt])
        held_out = part_of[prompt] != TRAIN
        size = min(test_size, len(rows)) if held_out else group_size
        count = min(1 if held_out else groups_per_prompt, len(rows) // size)
        for group in rows[: count * size].reshape(count, size):
            texts = [responses[row] for row in group]
            groups.append({"prompt": prompt, "responses": texts, "scores": scores[group].tolist()})
    return groups
