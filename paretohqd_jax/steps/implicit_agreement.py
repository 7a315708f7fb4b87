"""The step that says how far the implicit rewards of models agree with labels of held-out pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pyarrow.compute as pc

from paretohqd_jax.data.batches import token_ids
from paretohqd_jax.data.pairs import limit_per_prompt, rows_of
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.data.words import split_words
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.evaluation.agreement import measure_pairs
from paretohqd_jax.files import write_json
from paretohqd_jax.pipeline import Output
from paretohqd_jax.rewards.likelihood import with_boundary
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.log_probs import compute_log_probs
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.preference_losses import implicit_rewards

PER_PROMPT = ("num_prompts", "accuracy_se")  # of `measure_pairs`, to which each pair is a prompt

logger = logging.getLogger(__name__)


def implicit_agreement(task: Task, pairs: Output, models: Output) -> Output:
    """By objective what `measure_pairs` says of its model on held-out pairs, as JSON.

    Args:
      task: its `config.pairs.per_prompt` pairs of each held-out prompt are read.
      pairs: with their labels.
      models: a stack with an adapter for each objective.
    """
    config = task.config
    work = partial(write_agreement, base=task.base, batch_size=2 * config.train.batch_size)
    return task.run.step(
        "agreement", "improvement/agreement.json", work, pairs, models,
        objectives=task.objectives, beta=config.dpo.beta, per_prompt=config.pairs.per_prompt,
        seed=config.seed, also=task.network, all_processes=True,
    )  # fmt: skip


def write_agreement(
    path: Path,
    scratch: Path,
    pairs: Output,
    models: Output,
    *,
    base: BaseModel,
    batch_size: int,
    objectives: Sequence[str],
    beta: float,
    per_prompt: int,
    seed: int,
) -> None:
    """Leaves it; nothing of an objective that decides none of the held-out pairs."""
    table = read_table(pairs.path)
    table = table.filter(pc.equal(table["split"], "test"))
    table = limit_per_prompt(table, per_prompt, step_seed(seed, "agreement"))
    rows = rows_of(table)
    responses = rows["response"].to_pylist()
    tokens = with_boundary(
        *token_ids(base.tokenizer, base.format(rows["prompt"].to_pylist()), responses)
    )
    trained = load_adapters(models.path, checkpoint_meta(base, models.options["adapter_names"]))
    adapters = [jax.tree.map(lambda leaf, n=n: leaf[n], trained) for n in range(len(objectives))]
    found = compute_log_probs(base, [None, *adapters], tokens, batch_size, scratch, "agreement")
    rewards = implicit_rewards(found[1:], found[0], beta).reshape(len(objectives), -1, 2)
    words = np.array([len(split_words(response)) for response in responses]).reshape(-1, 2)
    agreement = {}
    for name, own in zip(objectives, rewards, strict=True):
        labels = table[name].to_numpy()
        decided = labels != 0
        if decided.any():
            scores = np.stack([labels, -labels], axis=1)[decided]
            measured = measure_pairs(own[decided], scores, words[decided], margin=1)
            agreement[name] = {key: measured[key] for key in measured if key not in PER_PROMPT}
            logger.info(
                "%s: its model's implicit reward prefers the better one of %.1f %% of %d held-out "
                "pairs, calibration error %.3f", name, 100 * agreement[name]["accuracy"],
                decided.sum(), agreement[name]["calibration_error"],
            )  # fmt: skip
    if is_main_process():
        write_json(path, agreement)
