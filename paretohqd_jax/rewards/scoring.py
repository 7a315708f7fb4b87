"""Text in, rewards out: scorers found by name, run in shards that survive a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paretohqd_jax.config import split_model
from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.distributed import check_preemption, is_main_process, on_main_process
from paretohqd_jax.errors import InputError, did_you_mean
from paretohqd_jax.files import write_json
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.rewards import functions
from paretohqd_jax.rewards.engine import compute_rewards
from paretohqd_jax.rewards.registry import REGISTRY, BaseModel, Entry, find_entry, packaged_names
from paretohqd_jax.rewards.reward_model import RewardModel
from paretohqd_jax.rewards.shards import Shard, checked_rewards, in_words, shard_name
from paretohqd_jax.user_functions import call, find_function

logger = logging.getLogger(__name__)
BATCHES_PER_SHARD = 4


class Scorer(Protocol):
    """One objective: a number for each response, larger is better."""

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Finite numbers `[num_rows]`; row i must depend on prompt i and response i only.

        A prompt of one user message is its text, any other conversation its `transcript`.
        """


SCORERS: dict[str, Scorer] = {
    "brief": functions.brief,
    "echo": functions.echo,
    "positivity": functions.positivity,
    "words": functions.word_count,
}


def find_scorer(name: str, base: BaseModel | None = None) -> Scorer | Entry | None:
    """The function that a name stands for, or what is known of a reward model, or None.

    Args:
      name: in SCORERS or the registry, or "package.module:function".
      base: the model of the run (see `find_entry`).

    Raises:
      InputError: there is no such registered model or function.
    """
    if name in SCORERS:
        return SCORERS[name]
    entry = find_entry(name, base)
    if entry is None and ":" in name:
        return find_function(name, f"reward model {name!r}")
    return entry


def resolve_scorer(name: str, base: BaseModel | None = None) -> Scorer | Entry:
    """`find_scorer` of what must be one; also raises InputError for `likelihood` of no model."""
    found = find_scorer(name, base)
    if found is None:
        known = [*SCORERS, *REGISTRY, *packaged_names()]
        raise InputError(
            f"unknown reward model {name!r}; {did_you_mean(name, known)}use one of "
            f"{', '.join(known)}, NAME@DIRECTORY for "
            "another copy of one of these, a directory with a card, or a function of yours as "
            "package.module:function"
        )
    if isinstance(found, Entry) and not found.checkpoint:
        raise InputError(
            f"reward model {name!r}: there is no base model outside a run; give a directory or a "
            f"hub name, as {name}@DIRECTORY"
        )
    return found


def check_scorer(name: str, backend: str, base: BaseModel | None = None) -> None:
    """Raises InputError for what can be known to be wrong without loading a model."""
    found = resolve_scorer(name, base)
    if isinstance(found, Entry) and not _in_torch(found, backend):
        from paretohqd_jax.rewards.loading import check_reward_model

        check_reward_model(name, found)


def load_scorer(
    name: str, backend: str, dtype: str, base: BaseModel | None = None
) -> Scorer | RewardModel:
    """The scorer of that name, ready to run; raises InputError if it cannot be loaded."""
    found = resolve_scorer(name, base)
    if not isinstance(found, Entry):
        return found
    if _in_torch(found, backend):
        from paretohqd_jax.rewards.torch_backend import load_torch_model

        return load_torch_model(name, found, dtype)
    from paretohqd_jax.rewards.loading import load_reward_model

    return load_reward_model(name, found, dtype)


def _in_torch(entry: Entry, backend: str) -> bool:
    """All but classifiers and adapters trained here are JAX's, whatever the backend."""
    return backend == "torch" and not entry.adapter and entry.num_outputs > 0


def score(
    prompts: Sequence[str],
    responses: Sequence[str],
    models: Sequence[str],
    *,
    backend: str = "jax",
    dtype: str = "float32",
    batch_size: int = 64,
    directory: Path | None = None,
    description: str = "score",
    source: str = "",
    row_ids: Sequence[int] | None = None,
    base: BaseModel | None = None,
) -> np.ndarray:
    """Scores every row by every model, in one pass over the rows. Rewards are never rounded.

    Identical (prompt, response) pairs are scored once. With a `directory`, each shard is kept there
    as soon as it is scored, under a name made from its content: a second call takes what it finds
    and scores the rest, and can never take a shard of other texts or of another model.

    All processes of a job call this with the same arguments. They share the work of reward models,
    over the mesh in context; functions and PyTorch run in the first alone.

    Args:
      prompts: `[num_rows]`, the prompts.
      responses: `[num_rows]`, one response to each.
      models: `[num_objectives]`, entries as of `config.rewards.models`.
      backend: of reward models, "jax" or "torch".
      dtype: of their weights, "float32" or "bfloat16".
      batch_size: rows that a reward model reads together.
      directory: where finished shards are kept; None keeps none.
      description: shown with the progress.
      source: where the rows are from, for messages.
      row_ids: `[num_rows]`, what messages call the rows; by default they count from 0.
      base: the model of a run, which the scorer `likelihood` stands for.

    Returns:
      float32 `[num_rows, num_objectives]`, in every process.

    Raises:
      InputError: an unknown scorer, one that cannot be loaded, or one that returned something other
        than one finite number per row; the message names the scorer, the row and how its response
        starts.
      Preempted: SIGTERM was received; finished shards are kept.
    """
    names = [split_model(model)[1] for model in models]
    for name in names:  # all of them, before the weights of the first are read
        check_scorer(name, backend, base)
    scorers = [load_scorer(name, backend, dtype, base) for name in names]
    contents = [[name, backend, dtype, repr(find_entry(name, base))] for name in names]
    rows, pair_of_row = _distinct_pairs(prompts, responses)
    # Shards of texts of like length, so that little of a batch is padding.
    order = sorted(range(len(rows)), key=lambda i: len(prompts[rows[i]]) + len(responses[rows[i]]))
    rewards = np.empty((len(rows), len(models)), dtype=np.float32)
    num_cut = [0] * len(models)
    size = batch_size * BATCHES_PER_SHARD
    with progress_bar(rewards.size, description, "score") as progress:
        for start in range(0, len(order), size):
            check_preemption()
            numbers = order[start : start + size]
            shard = Shard(
                [prompts[rows[i]] for i in numbers],
                [responses[rows[i]] for i in numbers],
                [rows[i] if row_ids is None else row_ids[rows[i]] for i in numbers],
            )
            for column, (name, scorer) in enumerate(zip(names, scorers, strict=True)):
                place = f"{source}: objective {name!r}" if source else f"objective {name!r}"
                path = directory and directory / shard_name(contents[column], shard)
                kept = _keep(scorer, shard, place, batch_size, path)
                rewards[numbers, column] = kept["rewards"]
                num_cut[column] += kept["num_cut"]
                progress.update(len(numbers))
    for name, count in zip(names, num_cut, strict=True):
        if count:
            logger.info(
                "%s: %d of %d texts are longer than %s reads and were cut",
                description, count, len(rows), name,
            )  # fmt: skip
    return rewards[pair_of_row]


def _keep(
    scorer: Scorer | RewardModel, shard: Shard, place: str, batch_size: int, path: Path | None
) -> dict[str, Any]:
    """`_score_shard`, unless an earlier process has left its result at `path`."""

    def read() -> dict[str, Any] | None:
        return json.loads(path.read_text()) if path and path.exists() else None

    def make() -> dict[str, Any]:
        made = _score_shard(scorer, shard, place, batch_size)
        if path and is_main_process():
            write_json(path, made)
        return made

    kept = on_main_process(read)
    if kept is not None:
        return kept
    takes_all = isinstance(scorer, RewardModel) and scorer.traced
    return make() if takes_all else on_main_process(make)


def _score_shard(
    scorer: Scorer | RewardModel, shard: Shard, place: str, batch_size: int
) -> dict[str, Any]:
    """The rewards of a shard's rows and how many of its texts were cut, fit for JSON."""
    if not isinstance(scorer, RewardModel):
        prompts = [transcript(prompt) for prompt in shard.prompts]
        values = call(scorer, in_words(place, shard), prompts, shard.responses)
        return {"rewards": checked_rewards(values, place, shard).tolist(), "num_cut": 0}
    tokens, num_cut = scorer.encode(shard.prompts, shard.responses)
    for row, ids in zip(shard.row_ids, tokens, strict=True):
        if not ids:
            raise InputError(
                f"{place}: row {row} is without a single token; remove empty responses"
            )
        if max(ids) >= scorer.vocab_size:  # reading another token's vector would go unseen
            raise InputError(
                f"{place}: row {row} has a token of number {max(ids)}, of which the model knows "
                f"{scorer.vocab_size}; give the checkpoint its own tokenizer"
            )
    values = compute_rewards(scorer, tokens, batch_size)
    return {"rewards": checked_rewards(values, place, shard).tolist(), "num_cut": num_cut}


def _distinct_pairs(
    prompts: Sequence[str], responses: Sequence[str]
) -> tuple[list[int], np.ndarray]:
    """The first row of each distinct pair, and for every row the number of its pair."""
    number_of_pair: dict[tuple[str, str], int] = {}
    first_rows = []
    pair_of_row = np.empty(len(prompts), dtype=np.int64)
    for row, pair in enumerate(zip(prompts, responses, strict=True)):
        if pair not in number_of_pair:
            number_of_pair[pair] = len(first_rows)
            first_rows.append(row)
        pair_of_row[row] = number_of_pair[pair]
    return first_rows, pair_of_row
