"""The step that gives the log-probabilities of both responses of every pair in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paretohqd_jax.data.batches import token_ids
from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.distributed import check_preemption, is_main_process, on_main_process
from paretohqd_jax.files import atomic_path
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.sharding import on_all_devices
from paretohqd_jax.pipeline import Output
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.rewards.engine import compute_rewards
from paretohqd_jax.rewards.likelihood import ResponseLogProb, with_boundary
from paretohqd_jax.rewards.reward_model import RewardModel
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.pairs import HELD_OUT_PAIRS, pairs_in_use
from paretohqd_jax.steps.task import Task
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.mesh import DECODING_RULES, sharded

BATCHES_PER_SHARD = 32  # responses that are computed, and kept, together


def log_probs(task: Task, name: str, pairs: Output, stack: Output | None = None) -> Output:
    """How likely models find the two responses of each pair of `pairs_in_use`, for all methods.

    Leaves float32 `[num_models, num_pairs, 2]`, of the chosen and the rejected response. The models
    are those of `stack` in its order, by default the base model alone.
    """
    work = partial(write_log_probs, base=task.base, batch_size=task.config.train.batch_size)
    return task.run.step(
        name, f"{name}.npy", work, pairs, *filter(None, [stack]),
        adapters=stack.options["adapter_names"] if stack else [],
        also=task.network | {"held_out_pairs": HELD_OUT_PAIRS}, all_processes=True,
    )  # fmt: skip


def write_log_probs(
    path: Path,
    scratch: Path,
    pairs: Output,
    stack: Output | None = None,
    *,
    base: BaseModel,
    batch_size: int,
    adapters: list[str],
) -> None:
    """Computes them, shard by shard; `batch_size` pairs are computed together."""
    rows = rows_of(pairs_in_use(pairs)[0])
    texts = base.format(rows["prompt"].to_pylist())
    tokens = with_boundary(*token_ids(base.tokenizer, texts, rows["response"].to_pylist()))
    models: list[dict[str, Any] | None] = [None]
    if stack is not None:
        trained = load_adapters(stack.path, checkpoint_meta(base, adapters))
        models = [
            jax.tree.map(lambda leaf, n=number: leaf[n], trained) for number in range(len(adapters))
        ]
    found = compute_log_probs(base, models, tokens, 2 * batch_size, scratch, path.stem)
    if is_main_process():
        np.save(path, found.reshape(len(models), -1, 2))


def compute_log_probs(
    base: BaseModel,
    adapters: Sequence[dict[str, Any] | None],
    tokens: list[list[int]],
    batch_size: int,
    scratch: Path,
    description: str,
) -> np.ndarray:
    """How likely the base model with each adapter, or with None, finds responses.

    Args:
      base: the model.
      adapters: of its scale, no leading axis.
      tokens: of prompts and responses, as of `with_boundary`.
      batch_size: responses computed together.
      scratch: keeps finished shards.
      description: shown with the progress.

    Returns:
      float32 `[num_adapters, num_responses]`.
    """
    size = batch_size * BATCHES_PER_SHARD
    found = np.empty((len(adapters), len(tokens)), np.float32)
    with sharded(base.mesh, DECODING_RULES), progress_bar(found.size, description, "text") as bar:
        for number, adapter in enumerate(adapters):
            variables = {} if adapter is None else {"lora": adapter}
            model = _scorer(base, jax.tree.map(on_all_devices, variables))
            for start in range(0, len(tokens), size):
                check_preemption()
                kept = scratch / f"{number}_{start}.npy"
                part = tokens[start : start + size]
                found[number, start : start + size] = _keep(kept, model, part, batch_size)
                bar.update(len(part))
    return found


def _scorer(base: BaseModel, adapter: dict[str, Any]) -> RewardModel:
    """The base model with an adapter, {"lora": ...}, or alone, as the scoring engine takes it."""
    model = base.model if adapter else Llama(base.config)
    variables = {"params": base.params, **adapter}
    return RewardModel(None, ResponseLogProb(model, mean=False), variables, base.config.vocab_size)


def _keep(path: Path, model: RewardModel, tokens: list[list[int]], batch_size: int) -> np.ndarray:
    """The log-probabilities of a shard, unless an earlier process has left them at `path`."""
    kept = on_main_process(lambda: np.load(path) if path.exists() else None)
    if kept is not None:
        return kept
    computed = compute_rewards(model, tokens, batch_size)
    if is_main_process():
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, computed)
    return computed
