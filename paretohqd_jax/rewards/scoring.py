"""Text in, rewards out: scorers found by name, of which only new texts are asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from paretohqd_jax.config import split_model
from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.distributed import check_preemption, is_main_process, on_main_process
from paretohqd_jax.errors import InputError, did_you_mean
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.rewards import functions
from paretohqd_jax.rewards.engine import compute_rewards
from paretohqd_jax.rewards.identity import function_identity, model_identity
from paretohqd_jax.rewards.registry import REGISTRY, BaseModel, Entry, find_entry, packaged_names
from paretohqd_jax.rewards.reward_model import RewardModel
from paretohqd_jax.rewards.shards import Shard, checked_rewards, in_words
from paretohqd_jax.rewards.store import Folder, Scores, folder_of
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
    store: Path | None = None,
    description: str = "score",
    source: str = "",
    row_ids: Sequence[int] | None = None,
    base: BaseModel | None = None,
) -> np.ndarray:
    """Scores every row by every model, in one pass over the rows. Rewards are never rounded.

    Identical (prompt, response) pairs are scored once. What a `store` has is taken from there, and
    what it lacks is scored and kept there; a model whose scores are all there is not loaded. In a
    batch of other rows a model's reward may differ in its last digits.

    All processes of a job call this with the same arguments. They share the work of reward models,
    over the mesh in context; functions and PyTorch run in the first alone.

    Args:
      prompts: `[num_rows]`, the prompts.
      responses: `[num_rows]`, one response to each.
      models: `[num_objectives]`, entries as of `config.rewards.models`.
      backend: of reward models, "jax" or "torch".
      dtype: of their weights, "float32" or "bfloat16".
      batch_size: rows that a reward model reads together.
      store: the folder where scores are kept, see `rewards.store`; None keeps none.
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
      Preempted: SIGTERM was received; what was scored is kept.
    """
    names = [split_model(model)[1] for model in models]
    for name in names:  # all of them, before the weights of the first are read
        check_scorer(name, backend, base)
    rows, pair_of_row = _distinct_pairs(prompts, responses)
    texts = Shard(
        [prompts[row] for row in rows],
        [responses[row] for row in rows],
        [row if row_ids is None else row_ids[row] for row in rows],
    )
    folders: list[Folder | None] = [None] * len(names)
    if store is not None and is_main_process():
        folders = [_folder(store, name, backend, dtype, base) for name in names]
    scores = Scores(folders, texts.prompts, texts.responses)
    is_known = np.isfinite(scores.rewards)
    scorers = [
        None if known.all() else load_scorer(name, backend, dtype, base)
        for name, known in zip(names, is_known.T, strict=True)
    ]
    places = [
        f"{source}: objective {name!r}" if source else f"objective {name!r}" for name in names
    ]
    try:
        _score_new(texts, scores, scorers, places, batch_size, description)
    finally:
        scores.write()
        if store is not None:
            _tell_counts(description, names, folders, is_known, scores)
    for name, is_cut in zip(names, scores.is_cut.T, strict=True):
        if is_cut.any():
            logger.info(
                "%s: %d of %d texts are longer than %s reads and were cut",
                description, is_cut.sum(), len(rows), name,
            )  # fmt: skip
    return scores.rewards[pair_of_row]


def _folder(
    store: Path, name: str, backend: str, dtype: str, base: BaseModel | None
) -> Folder | None:
    """Where the store keeps the scores of a scorer; None if it cannot tell it from others."""
    found = resolve_scorer(name, base)
    if isinstance(found, Entry):
        runs = "torch" if _in_torch(found, backend) else "jax"
        return folder_of(store, name, model_identity(found, runs, dtype, store / "weights"))
    return folder_of(store, name, function_identity(name, found))


def _score_new(
    texts: Shard,
    scores: Scores,
    scorers: Sequence[Scorer | RewardModel | None],
    places: Sequence[str],
    batch_size: int,
    description: str,
) -> None:
    """Adds to the scores of the texts what is not known; `places` begin messages."""
    is_known = np.isfinite(scores.rewards)
    # Shards of texts of like length, so that little of a batch is padding. They are those of all
    # texts, so that a run that was killed goes on with the same ones.
    lengths = [len(p) + len(r) for p, r in zip(texts.prompts, texts.responses, strict=True)]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = batch_size * BATCHES_PER_SHARD
    with progress_bar(is_known.size, description, "score", int(is_known.sum())) as progress:
        for start in range(0, len(order), size):
            check_preemption()
            for column, (scorer, place) in enumerate(zip(scorers, places, strict=True)):
                new = [i for i in order[start : start + size] if not is_known[i, column]]
                if new:
                    shard = Shard(*([values[i] for i in new] for values in texts))
                    scores.add(column, new, *score_shard(scorer, shard, place, batch_size))
                    progress.update(len(new))


def _tell_counts(
    description: str,
    names: Sequence[str],
    folders: Sequence[Folder | None],
    is_known: np.ndarray,
    scores: Scores,
) -> None:
    """Says of each scorer how many rows were in the store, how many are new, and where they are."""
    num_known, num_now = is_known.sum(axis=0), np.isfinite(scores.rewards).sum(axis=0)
    for name, folder, known, now in zip(names, folders, num_known, num_now, strict=True):
        where = f"kept in {folder.path}" if folder else "not kept: its program cannot be read"
        logger.info(
            "%s: %s: of %d different rows %d from the store, %d scored; %s",
            description, name, len(is_known), known, now - known, where,
        )  # fmt: skip


def score_shard(
    scorer: Scorer | RewardModel, shard: Shard, place: str, batch_size: int
) -> tuple[list[float], list[bool]]:
    """The rewards of a shard's rows, and which of its texts were cut; `place` begins messages.

    All processes of a job call this alike.
    """

    def run() -> tuple[list[float], list[bool]]:
        if isinstance(scorer, RewardModel):
            return _run_model(scorer, shard, place, batch_size)
        prompts = [transcript(prompt) for prompt in shard.prompts]
        values = call(scorer, in_words(place, shard), prompts, shard.responses)
        return checked_rewards(values, place, shard).tolist(), [False] * len(prompts)

    takes_all = isinstance(scorer, RewardModel) and scorer.traced
    return run() if takes_all else on_main_process(run)


def _run_model(
    model: RewardModel, shard: Shard, place: str, batch_size: int
) -> tuple[list[float], list[bool]]:
    """See `score_shard`."""
    tokens, is_cut = model.encode(shard.prompts, shard.responses)
    for row, ids in zip(shard.row_ids, tokens, strict=True):
        if not ids:
            raise InputError(
                f"{place}: row {row} is without a single token; remove empty responses"
            )
        if max(ids) >= model.vocab_size:  # reading another token's vector would go unseen
            raise InputError(
                f"{place}: row {row} has a token of number {max(ids)}, of which the model knows "
                f"{model.vocab_size}; give the checkpoint its own tokenizer"
            )
    values = compute_rewards(model, tokens, batch_size)
    return checked_rewards(values, place, shard).tolist(), is_cut


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
