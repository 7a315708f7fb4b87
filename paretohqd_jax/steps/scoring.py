"""The steps that give rewards: to the rows of the data, and to generated responses."""

from __future__ import annotations

import collections
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jax.sharding import Mesh

from paretohqd_jax.config import check_supply, objective_names
from paretohqd_jax.data.pairs import rows_of
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.distributed import is_main_process, on_main_process
from paretohqd_jax.evaluation.collapse import collapse_causes
from paretohqd_jax.pipeline import Output, source_digest
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.rows import data_options, num_training, split_rows
from paretohqd_jax.steps.task import (
    Task,
    checkpoints,
    longest_response,
    prompt_options,
    reward_options,
)
from paretohqd_jax.training.mesh import DECODING_RULES, sharded

NUM_REFERENCE_ROWS = 1000  # their mean is known to 3 % of the spread

logger = logging.getLogger(__name__)


def score_rows(task: Task) -> Output:
    """Scores every response of the data with the reward models, and holds out the test prompts.

    Before the rows are scored it is known whether they are enough for the steps that follow.
    """
    config, base = task.config, task.base
    options = reward_options(config)
    return task.run.step(
        "score", "scores.parquet",
        partial(
            score_data, base=base, batch_size=config.rewards.batch_size, store=task.store,
            max_new_tokens=longest_response(config),
            check_supply=partial(check_supply, config),
        ),
        data=data_options(config),
        num_test_prompts=config.data.num_test_prompts, min_tokens=config.data.min_tokens,
        max_tokens=config.data.max_tokens, gate_columns=run_gates(config).columns, **options,
        also=prompt_options(base) | {"data_digest": source_digest(config.data.source)}
        | checkpoints(options["models"], base),
        all_processes=True,
    )  # fmt: skip


def score_responses(task: Task, name: str, path: str, responses: Output) -> Output:
    """Scores generated responses with the reward models, and notes which have collapsed."""
    return _scored_by_models(task, name, path, add_rewards, responses)


def reference_rows(task: Task, scored: Output) -> Output:
    """Training rows whose rewards are in the units of the models' answers.

    They are the scored rows themselves, or where these brought scores or labels along, a sample of
    them that the reward models have scored.
    """
    if "models" in scored.options and not parse_scores(task.config.data.scores):
        return scored
    return _scored_by_models(task, "reference", "reference.parquet", score_reference, scored)


def _scored_by_models(
    task: Task, name: str, path: str, work: Callable[..., None], rows: Output
) -> Output:
    options = reward_options(task.config)
    batch_size = task.config.rewards.batch_size
    return task.run.step(
        name, path, partial(work, base=task.base, batch_size=batch_size, store=task.store), rows,
        **options, also=checkpoints(options["models"], task.base), all_processes=True,
    )  # fmt: skip


def score_data(
    path: Path,
    scratch: Path,
    *,
    base: BaseModel,
    data: dict[str, str],
    models: Sequence[str],
    backend: str,
    dtype: str,
    num_test_prompts: int,
    min_tokens: int,
    max_tokens: int,
    batch_size: int,
    store: Path,
    max_new_tokens: int,
    gate_columns: Sequence[str] = (),
    check_supply: Callable[[int, int], None] | None = None,
) -> None:
    """Loads the rows, leaves out those of unfit length, holds out test prompts, scores the rest.

    `data` are the arguments of `load_rows`. Objectives whose scores it brings along keep these; the
    `models` give the others, and the scores that gates ask for; `gate_columns` are further ones
    that the rows bring along for gates; `check_supply` is told how many training rows and prompts
    there are.
    """
    rows = scratch / "rows.parquet"

    def prepare() -> None:
        table = split_rows(
            data, gate_columns, base, min_tokens, max_tokens, max_new_tokens, num_test_prompts
        )
        if check_supply is not None:
            check_supply(*num_training(table))
        write_table(rows, table)

    on_main_process(prepare)  # a user's function may be behind the data
    table = read_table(rows)
    wanted = models_without_scores(models, data.get("scores", ""))
    if wanted:
        rewards = rewards_of(
            table, wanted, base.mesh, store, "scoring the data",
            backend=backend, dtype=dtype, batch_size=batch_size, source=data["source"],
            row_ids=table["source_row"].to_pylist(), base=base,
        )  # fmt: skip
        table = with_rewards(table, rewards, objective_names(wanted))
    if is_main_process():
        write_table(path, with_statistics(table, objective_names(models)))


def models_without_scores(models: Sequence[str], scores: str) -> list[str]:
    """The entries of `config.rewards.models` whose objectives `config.data.scores` leaves out.

    These are to score the data; the others' scores come with the rows.
    """
    given = parse_scores(scores)
    return [m for m, name in zip(models, objective_names(models), strict=True) if name not in given]


def score_reference(
    path: Path,
    scratch: Path,
    scored: Output,
    *,
    base: BaseModel,
    models: Sequence[str],
    backend: str,
    dtype: str,
    batch_size: int,
    store: Path,
) -> None:
    """Scores random training rows by the reward models, in place of what the data brought along.

    Generated text has no other rewards than these models': whoever normalises them needs the mean
    and the spread of responses in the same units.
    """
    table = rows_of(read_table(scored.path))
    rows = np.flatnonzero(is_candidate(table))
    random = np.random.default_rng(step_seed(0, "reference"))  # the same under every seed of a run
    rows = np.sort(random.permutation(rows)[:NUM_REFERENCE_ROWS])
    table = table.take(rows)
    rewards = rewards_of(
        table, models, base.mesh, store, "scoring reference rows",
        backend=backend, dtype=dtype, batch_size=batch_size, base=base,
    )  # fmt: skip
    names = objective_names(models)
    if is_main_process():
        write_table(path, with_statistics(with_rewards(table, rewards, names), names))


def with_rewards(table: pa.Table, rewards: np.ndarray, objectives: Sequence[str]) -> pa.Table:
    """The table with each column of `rewards [num_rows, num_objectives]` under its name, float32.

    They take the place of columns of these names.
    """
    table = table.drop_columns([name for name in objectives if name in table.column_names])
    for column, name in enumerate(objectives):
        table = table.append_column(name, pa.array(rewards[:, column], pa.float32()))
    return table


def with_statistics(table: pa.Table, objectives: Sequence[str]) -> pa.Table:
    """The table with mean and standard deviation of its rewards in its metadata.

    Under the key `rewards`, as JSON: {objective: {"mean": ..., "std": ...}}, of the rows of the
    split "train" where there are splits. They stand beside the rewards, which stay as they are, for
    whoever wants them on one scale.
    """
    train = table
    if "split" in table.column_names and "train" in table["split"].to_pylist():
        train = table.filter(pc.equal(table["split"], "train"))
    statistics = {}
    for name in objectives:
        values = train[name].to_numpy().astype(np.float64)
        statistics[name] = {"mean": float(values.mean()), "std": float(values.std())}
    metadata = {**(table.schema.metadata or {}), b"rewards": json.dumps(statistics).encode()}
    return table.replace_schema_metadata(metadata)


def add_rewards(
    path: Path,
    scratch: Path,
    responses: Output,
    *,
    base: BaseModel,
    models: Sequence[str],
    backend: str,
    dtype: str,
    batch_size: int,
    store: Path,
) -> None:
    """Adds rewards and the cause of collapse ("" for none) to generated responses."""
    table = read_table(responses.path)
    rewards = rewards_of(
        table, models, base.mesh, store, "scoring the responses",
        backend=backend, dtype=dtype, batch_size=batch_size, base=base,
    )  # fmt: skip
    if is_main_process():
        causes = collapse_causes(table["response"].to_pylist(), table["periodic_tail"].to_numpy())
        collapsed = pa.array([str(cause) for cause in causes])
        found = collections.Counter(filter(None, collapsed.to_pylist()))
        told = ", ".join(f"{cause} {count}" for cause, count in sorted(found.items())) or "none"
        logger.info("%d responses; collapsed, so never selected: %s", len(collapsed), told)
        scored = with_rewards(table, rewards, objective_names(models))
        write_table(path, scored.append_column("collapsed", collapsed))


def rewards_of(
    table: pa.Table,
    models: Sequence[str],
    mesh: Mesh,
    store: Path,
    description: str,
    **options: Any,
) -> np.ndarray:
    """The rewards `[num_rows, num_models]` of the table's responses, over all devices of `mesh`.

    `store` and `options` are as of `score`.
    """
    with sharded(mesh, DECODING_RULES):
        return score(
            table["prompt"].to_pylist(), table["response"].to_pylist(), models,
            store=store, description=description, **options,
        )  # fmt: skip
