"""The step that learns which response belongs to which prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.groups import TRAIN, shared_responses
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_tensors
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.models.word_pairs import join_pairs, word_pairs
from paretohqd_jax.pipeline import Output
from paretohqd_jax.rewards.registry import Entry
from paretohqd_jax.rewards.reward_model import encode_pairs, separator_of
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.matching import Texts, learn_match


def match_groups(
    path: Path,
    scratch: Path,
    groups: Output,
    *,
    base: BaseModel,
    entry: Entry,
    rank: int,
    penalty: float,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Learns from the better responses of the training groups, and writes safetensors."""
    table = read_table(groups.path)
    prompts, responses = better_responses(table.filter(pc.equal(table["split"], TRAIN)))
    ids, _ = encode_pairs(
        base.tokenizer, entry.texts, entry.cut, entry.max_tokens, prompts, responses
    )
    separator = separator_of(base.tokenizer, entry.texts, entry.cut)
    ends = [its_ids.index(separator) + 1 for its_ids in ids]
    rows = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt].append(row)
    if len(rows) < batch_size:
        raise InputError(
            f"config.match.batch_size={batch_size}: there are {len(rows)} training prompts; use "
            "as many or fewer"
        )
    pairs = word_pairs(base.tokenizer)
    sides = [
        Texts(*join_pairs(pairs, *pad_texts(side)))
        for side in (
            [its_ids[:end] for its_ids, end in zip(ids, ends, strict=True)],
            [its_ids[end:] for its_ids, end in zip(ids, ends, strict=True)],
        )
    ]
    _, params = load_pretrained(base.source, "float32", num_layers=1)
    match = learn_match(
        params["embed_tokens"], *sides, list(rows.values()), rank=rank, penalty=penalty,
        num_steps=num_steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    write_tensors(path, match, {})


def better_responses(groups: pa.Table) -> tuple[list[str], list[str]]:
    """Prompts and responses that score above the least of their group, as no corrupted copy does.

    But for `shared_responses`, which do not tell prompts apart. `groups` are those of
    `data.groups`, with or without copies (see `data.negatives`).
    """
    rows = [
        (group["prompt"], response)
        for group in groups.to_pylist()
        for response, score in zip(group["responses"], group["scores"], strict=True)
        if score > min(group["scores"])
    ]
    shared = shared_responses(rows)
    rows = [(prompt, response) for prompt, response in rows if response not in shared]
    return [prompt for prompt, _ in rows], [response for _, response in rows]


def pad_texts(ids: Sequence[Sequence[int]]) -> Texts:
    """Token ids as arrays, padded on the right."""
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, its_ids in enumerate(ids):
        tokens[row, : len(its_ids)] = its_ids
        mask[row, : len(its_ids)] = True
    return Texts(tokens, mask)
