"""Which of a model's own responses make rows: cut, gated, and without those that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from paretohqd_jax.config import objective_names, split_model
from paretohqd_jax.data.gates import count_failures, failures, in_words
from paretohqd_jax.data.overlap import near_duplicates
from paretohqd_jax.data.rows import drop_duplicates
from paretohqd_jax.data.words import ends_sentence, first_sentences
from paretohqd_jax.evaluation import collapse
from paretohqd_jax.rewards.scoring import check_scorer
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.gates import RunGates, sort_gates
from paretohqd_jax.steps.scoring import rewards_of, with_rewards
from paretohqd_jax.training.mesh import make_mesh


def check_gates(texts: Sequence[str], base: BaseModel) -> RunGates:
    """The gates of texts that are no rows yet; an InputError for one that names no scorer."""
    gates = sort_gates(texts, (), "--gate")
    for entry in (*gates.columns, *gates.scorers):
        check_scorer(split_model(entry)[1], "jax", base)
    return gates


def with_first_sentences(rows: pa.Table, counts: Sequence[int]) -> pa.Table:
    """The rows, and after them for each count the first so many sentences of every response.

    Lines that end without the mark of a sentence, such as one before a list, make no row.
    """
    tables = [rows]
    for count in counts:
        cut = [first_sentences(response, count) for response in rows["response"].to_pylist()]
        table = pa.table({"prompt": rows["prompt"], "response": cut})
        tables.append(table.filter(pa.array(map(ends_sentence, cut), pa.bool_())))
    return pa.concat_tables(tables)


def without_collapsed(rows: pa.Table) -> pa.Table:
    """The different rows whose responses have not collapsed."""
    whole = [cause == "" for cause in collapse.collapse_causes(rows["response"].to_pylist())]
    return drop_duplicates(rows.filter(pa.array(whole, pa.bool_())))


def within_gates(
    rows: pa.Table, gates: RunGates, base: BaseModel, store: Path, batch_size: int, dtype: str
) -> tuple[pa.Table, str]:
    """The rows that pass the gates, and in words how many each of these takes.

    Args:
      rows: with prompt and response.
      gates: of `check_gates`.
      base: the model that `likelihood` stands for.
      store: where scores are kept, see `rewards.store`.
      batch_size, dtype: of scorers that are models.
    """
    rewards = rewards_of(
        rows, gates.scorers, make_mesh(), store, "scoring", dtype=dtype, batch_size=batch_size,
        base=base,
    )  # fmt: skip
    scored = with_rewards(rows, rewards, objective_names(gates.scorers))
    failed = failures(scored, gates.gates, "--gate")
    took = in_words(count_failures(gates.gates, failed))
    return rows.filter(pa.array(~failed.any(axis=0))), took


def without_near_duplicates(rows: pa.Table, limit: float) -> pa.Table:
    """The rows without those that repeat one before them, see `near_duplicates`."""
    repeated = near_duplicates(rows["prompt"].to_pylist(), rows["response"].to_pylist(), limit)
    return rows.filter(pa.array([not repeats for repeats in repeated], pa.bool_()))
