"""Groups of responses to one prompt, with a score each: what a reward model learns from.

Columns `prompt`, `responses` (a list of texts), `scores` (as many numbers, larger is better) and
`split`, "train" or "test". A preference pair is a group of two.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.conversations import dialogue, is_conversation, messages_of
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import check_columns, source_rows
from paretohqd_jax.data.scores import log_odds as log_odds_of
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)


def group_responses(
    table: pa.Table,
    *,
    score: str,
    log_odds: bool,
    group_size: int,
    groups_per_prompt: int,
    test_share: float,
    test_size: int,
    seed: int,
    source: str,
) -> pa.Table:
    """Pairs or scored rows as groups, split by prompt (see `in_test`).

    Args:
      table: columns `prompt`, `chosen`, `rejected` (see `pairs`), or `prompt`, `response`, `score`.
      score: the column of scores; of pairs, that of labels, "" if the chosen one is always better.
        Rows without a score are left out.
      log_odds: the scores are probabilities, whose logarithmic odds are meant.
      group_size: responses of a training group; of pairs always two.
      groups_per_prompt: at most as many training groups of a prompt; no response is in two.
      test_share: of the prompts, held out.
      test_size: at most as many responses to a held out prompt, in one group.
      seed: of the choice of responses.
      source: for messages.

    Raises:
      InputError: the table does not fit, or there is no group.
    """
    if {"chosen", "rejected"} <= set(table.column_names):
        groups = _groups_of_pairs(table, score, source)
    else:
        sizes = {"train": group_size, "test": test_size}
        groups = _groups_of_rows(
            table, score, log_odds, sizes, groups_per_prompt, test_share, seed, source
        )
    split = ["test" if in_test(group["prompt"], test_share) else "train" for group in groups]
    if not groups:
        raise InputError(f"{source}: no prompt has responses to compare, {group_size} for training")
    return pa.Table.from_pylist(groups).append_column("split", pa.array(split))


def in_test(prompt: str, share: float) -> bool:
    """Whether a prompt is held out: by its text alone, whatever else the data hold.

    Of a conversation that is the `dialogue`, which HH-RLHF's prompts were before turns were told
    apart: reward models that were trained then keep their test prompts.
    """
    text = dialogue(messages_of(prompt)) if is_conversation(prompt) else prompt
    digest = hashlib.sha256(text.strip().encode()).hexdigest()
    return int(digest[:8], 16) / 16**8 < share


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
    sizes: dict[str, int],
    groups_per_prompt: int,
    test_share: float,
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
        test = in_test(prompt, test_share)
        size = min(sizes["test"], len(rows)) if test else sizes["train"]
        count = min(1 if test else groups_per_prompt, len(rows) // size)
        for group in rows[: count * size].reshape(count, size):
            texts = [responses[row] for row in group]
            groups.append({"prompt": prompt, "responses": texts, "scores": scores[group].tolist()})
    return groups
