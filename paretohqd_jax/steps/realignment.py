"""The step that aligns models once more, to answers better than both of a pair's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.batches import Examples, tokenize
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.pareto.improvement import losers
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.conflicts import PLACES
from paretohqd_jax.steps.improvement import TAKEN
from paretohqd_jax.steps.preferences import NUM_RESPONSES
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import on_tiles, on_top_of, train_stack, training_step
from paretohqd_jax.training.preference_losses import implicit_rewards
from paretohqd_jax.training.realignment import Improvements, realignment_objective


class BetterPairs(NamedTuple):
    """Better answers, each with an original: rows of the candidates, and whose pairs they are."""

    texts: np.ndarray  # int [pairs, 2], the better answer first
    counts: np.ndarray  # bool [pairs, num_objectives]


def realign(
    task: Task,
    models: Output,
    conflicts: Output,
    candidates: Output,
    log_probs: Output,
    improvement: Output,
) -> Output:
    """The stack `sipo`: each model aligned once more, by an adapter on top of it that stays.

    Args:
      task: its `config.sipo`, `config.dpo` and `config.train` say how.
      models: a stack with an adapter for each objective.
      conflicts: the pairs that were to be improved.
      candidates: their responses and the answers to them.
      log_probs: of these texts, under the base model and then each model.
      improvement: which answers are taken.
    """
    config = task.config.sipo
    objective = {**task.config.dpo, **{name: config[name] for name in ("nll_weight", "nll_length")}}
    return training_step(
        task, "sipo", train_on_improvements, models, conflicts, candidates, log_probs, improvement,
        adapter_names=models.options["adapter_names"], objectives=task.objectives,
        losers=config.losers, objective=objective, num_steps=config.num_steps,
        learning_rate=config.learning_rate, num_responses=NUM_RESPONSES,
    )  # fmt: skip


def train_on_improvements(
    path: Path,
    scratch: Path,
    models: Output,
    conflicts: Output,
    candidates: Output,
    log_probs: Output,
    improvement: Output,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    objectives: Sequence[str],
    losers: str,
    objective: Mapping[str, Any],
    batch_size: int,
    num_microbatches: int,
    num_responses: int,
    **how: Any,
) -> dict[str, int]:
    """Trains them; `how` are the other arguments of `train_stack`. Returns what that cost."""
    num_adapters, texts = len(adapter_names), read_table(candidates.path)
    likelihoods = np.load(log_probs.path)[: 1 + num_adapters]
    rewards = implicit_rewards(likelihoods[1:], likelihoods[0], objective["beta"])
    pairs = better_pairs(
        read_table(improvement.path), read_table(conflicts.path), objectives, rewards, losers
    )
    tokens = _tokenized(base, texts, pairs.texts, candidates.path)

    def for_all(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (num_adapters, *array.shape))

    examples = Improvements(*map(for_all, tokens), likelihoods[1:][:, pairs.texts])
    check_training_memory(
        on_top_of(base), num_adapters, batch_size, examples.tokens.shape[-1], num_microbatches,
        num_responses,
    )  # fmt: skip
    return train_stack(
        path, examples, base=base, adapter_names=adapter_names, batch_size=batch_size,
        num_microbatches=num_microbatches, objective=realignment_objective(**objective),
        candidates=[np.flatnonzero(own) for own in pairs.counts.T], beneath=models, **how,
    )  # fmt: skip


def better_pairs(
    improvement: pa.Table,
    conflicts: pa.Table,
    objectives: Sequence[str],
    rewards: np.ndarray,
    rule: str,
) -> BetterPairs:
    """Each answer that was taken, with the originals that some objective prefers it to.

    Args:
      improvement: as `improvement.improve` leaves it.
      conflicts: the pairs, with their labels.
      objectives: the columns of labels.
      rewards: implicit ones of the texts, `[num_objectives, num_texts]`.
      rule: of `pareto.improvement.losers`.
    """
    taken = improvement.filter(pc.equal(improvement["verdict"], TAKEN))
    of_pair, better = (taken[name].to_numpy() for name in ("pair", "text"))
    by_place = [
        improvement.filter(pc.equal(improvement["source"], place))["text"].to_numpy()[of_pair]
        for place in PLACES
    ]
    originals = np.stack(by_place, axis=1)  # [pairs, 2]
    labels = np.stack([conflicts[name].to_numpy()[of_pair] for name in objectives], axis=1)
    counts = losers(labels, np.moveaxis(rewards[:, originals], 0, -1), rule)
    used = counts.any(axis=-1)
    texts = np.stack([np.broadcast_to(better[:, None], originals.shape), originals], axis=-1)
    return BetterPairs(texts[used], counts[used])


def _tokenized(base: BaseModel, texts: pa.Table, rows: np.ndarray, source: Path) -> Examples:
    """Tokens and masks of rows `[pairs, 2]` of the texts; one that was cut has no end token."""
    table = texts.take(rows.ravel())
    examples = tokenize(
        base.tokenizer, base.format(table["prompt"].to_pylist()), table["response"].to_pylist(),
        base.config.max_position_embeddings, table["truncated"].to_pylist(), source=source,
        row_ids=rows.ravel(),
    )  # fmt: skip
    return Examples(*(array.reshape(*rows.shape, -1) for array in on_tiles(examples)))
