"""The rows of a run before they are scored: those of fit length, some prompts held out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from paretohqd_jax.data.batches import token_counts
from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.data.sources import load_rows, split_by_prompt
from paretohqd_jax.errors import InputError
from paretohqd_jax.steps.base_model import BaseModel, step_seed

logger = logging.getLogger(__name__)


def reading_options(config: ConfigDict) -> dict[str, str]:
    """The arguments of `load_pairs` that options give."""
    names = ("source", "format", "columns", "split", "revision")
    return {name: config.data[name] for name in names}


def data_options(config: ConfigDict) -> dict[str, str]:
    """The arguments of `load_rows` that options give."""
    return reading_options(config) | {"scores": config.data.scores}


def split_rows(
    data: Mapping[str, str],
    gate_columns: Sequence[str],
    base: BaseModel,
    min_tokens: int,
    max_tokens: int,
    max_new_tokens: int,
    num_test_prompts: int,
) -> pa.Table:
    """The rows of `data_options` without those of unfit length, with their split."""
    loaded = load_rows(**data, gate_columns=gate_columns)
    table = fitting_rows(loaded, base, data["source"], min_tokens, max_tokens, max_new_tokens)
    return with_split(table, num_test_prompts)


def with_split(table: pa.Table, num_test_prompts: int) -> pa.Table:
    """The table with a column `split`: "test" for so many prompts, else "train".

    They are the same prompts under every seed of a run, so that runs of several can be compared.
    """
    held_out = split_by_prompt(table["prompt"].to_pylist(), num_test_prompts, step_seed(0, "split"))
    return table.append_column("split", pa.array(np.where(held_out, "test", "train")))


def num_training(table: pa.Table) -> tuple[int, int]:
    """How many training rows there are, and how many prompts they have."""
    train = table.filter(pc.equal(table["split"], "train"))
    return train.num_rows, len(pc.unique(train["prompt"]))


def fitting_rows(
    table: pa.Table,
    base: BaseModel,
    source: str,
    min_tokens: int,
    max_tokens: int,
    max_new_tokens: int,
) -> pa.Table:
    """The rows of `min_tokens` to `max_tokens`; an InputError names a prompt that is too long.

    Of pairs, those whose responses both fit.
    """
    base.eos_token_ids  # a tokenizer without one is an error before any work  # noqa: B018
    rows = rows_of(table)
    texts, responses = _formatted_prompts(base, rows, source), rows["response"].to_pylist()
    prompt_counts, response_counts = token_counts(base.tokenizer, texts, responses)
    context = base.config.max_position_embeddings
    if prompt_counts.max() + max_new_tokens > context:
        longest = int(prompt_counts.argmax())
        raise InputError(
            f"{source}: row {rows['source_row'][longest]}: the prompt has "
            f"{prompt_counts[longest]} tokens, and with a response "
            f"of {max_new_tokens} is longer than the model's context of {context}; shorten or "
            "remove it, or lower max_new_tokens in config.generate and config.evaluate"
        )
    counts = prompt_counts + response_counts
    most, limit = min(max_tokens, context), ", the model's context" * (context < max_tokens)
    fits = (counts >= min_tokens) & (counts <= most)
    kind = "row" if rows is table else "pair"
    fits = fits.reshape(table.num_rows, -1).all(axis=1)
    unfit = np.flatnonzero(~fits)
    first = f", the first of them row {table['source_row'][unfit[0]]}" if unfit.size else ""
    logger.info(
        "%s: %d %ss of %d to %d tokens%s, %d others left out%s",
        source, fits.sum(), kind, min_tokens, most, limit, unfit.size, first,
    )  # fmt: skip
    if not fits.any():
        raise InputError(
            f"{source}: no row has {min_tokens} to {most} tokens{limit}; "
            "change config.data.min_tokens or config.data.max_tokens"
        )
    return table.filter(pa.array(fits))


def _formatted_prompts(base: BaseModel, table: pa.Table, source: str) -> list[str]:
    """As `BaseModel.format`; an InputError names the row whose conversation will not do."""
    texts = []
    for prompt, row in zip(
        table["prompt"].to_pylist(), table["source_row"].to_pylist(), strict=True
    ):
        try:
            texts += base.format([prompt])
        except InputError as error:
            raise InputError(f"{source}: row {row}: {error}") from error
    return texts
