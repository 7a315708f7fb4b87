"""The steps that gather answers to pairs in conflict, and say how likely models find them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.config.sipo import mixture_weights
from paretohqd_jax.data.batches import token_ids
from paretohqd_jax.data.pairs import in_conflict
from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policy, mixtures, one_adapter_each, preference_labels
from paretohqd_jax.rewards.likelihood import with_boundary
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.log_probs import compute_log_probs
from paretohqd_jax.steps.pairs import training_pairs
from paretohqd_jax.steps.refinement import check_budget, refinement_budget
from paretohqd_jax.steps.soups import average_factors
from paretohqd_jax.steps.stacks import adapters_of, stacked
from paretohqd_jax.steps.task import Task

ORIGINAL = "original"
PLACES = ("chosen", "rejected")

logger = logging.getLogger(__name__)


def pairs_in_conflict(task: Task, pairs: Output) -> Output:
    """The training pairs whose objectives disagree, of at most `config.generate.num_prompts`.

    Before a model is trained it is known that there are such pairs, and that the model's context
    has room to refine the answers to their prompts.
    """
    budget = refinement_budget(task.config, task.base)
    return task.run.step(
        "conflicts", "improvement/conflicts.parquet",
        partial(write_conflicts, base=task.base, budget=budget), pairs,
        objectives=task.objectives, num_prompts=task.config.generate.num_prompts,
        seed=task.config.seed,
    )  # fmt: skip


def write_conflicts(
    path: Path,
    scratch: Path,
    pairs: Output,
    *,
    base: BaseModel,
    budget: Mapping[str, int],
    objectives: Sequence[str],
    num_prompts: int,
    seed: int,
) -> None:
    """Leaves the pairs of random prompts, all those of a prompt, in their order."""
    table = training_pairs(pairs)
    table = table.filter(pa.array(in_conflict(table, objectives)))
    if not table.num_rows:
        raise InputError(
            f"{pairs.path}: in none of the training pairs do {' and '.join(objectives)} disagree, "
            "so there is nothing to improve; take objectives that pull apart, raise "
            "config.pairs.per_prompt or a config.pairs.conflict near 0, lower config.pairs.margin, "
            "or use config.method='mod'"
        )
    prompts = pc.unique(table["prompt"])
    order = np.random.default_rng(step_seed(seed, "prompts")).permutation(len(prompts))
    chosen = prompts.take(pa.array(order[:num_prompts]))
    table = table.filter(pc.is_in(table["prompt"], chosen))
    if budget:
        check_budget(base, chosen.to_pylist(), budget)
    logger.info("%d pairs of %d prompts are in conflict", table.num_rows, len(chosen))
    write_table(path, table)


def reward_models_within(task: Task, models: Output) -> tuple[list[Policy], list[Output]]:
    """The policies whose implicit rewards judge answers, and the stacks that they lie in.

    First come the models of one objective each, then the soups between them.
    """
    config = task.config.sipo
    corners = one_adapter_each(models.path.name, np.eye(len(task.objectives)))
    weights = mixture_weights(config.soup_weights, len(task.objectives))
    if config.average == "updates" or not len(weights):
        return corners + mixtures(corners, weights), [models]
    soups = average_factors(task, "soups", preference_labels(weights), weights, models)
    return corners + one_adapter_each("soups", weights), [models, soups]


def gather_candidates(
    task: Task, conflicts: Output, drafts: Output, rewrites: Output | None
) -> Output:
    """All texts that are judged: the originals, then the drafts, then the rewrites.

    Leaves `prompt`, `response`, `source`, the label of the `policy`, `review`, `truncated` and
    `periodic_tail`.
    """
    return task.run.step(
        "candidates", "improvement/candidates.parquet", write_candidates,
        conflicts, drafts, *filter(None, [rewrites]),
    )  # fmt: skip


def write_candidates(
    path: Path, scratch: Path, conflicts: Output, drafts: Output, rewrites: Output | None = None
) -> None:
    """Leaves each original once, and every draft and rewrite."""
    pairs = read_table(conflicts.path)
    originals = pa.concat_tables(
        pa.table({"prompt": pairs["prompt"], "response": pairs[place]}) for place in PLACES
    )
    parts = [_labelled(drop_duplicates(originals), ORIGINAL)]
    parts += [_labelled(read_table(drafts.path), "draft")]
    if rewrites:
        parts.append(_labelled(read_table(rewrites.path), "rewrite"))
    write_table(path, pa.concat_tables(parts))


def _labelled(table: pa.Table, source: str) -> pa.Table:
    """The columns that candidates have, those that the table lacks empty."""
    columns = {"source": pa.repeat(source, table.num_rows)}
    for name, empty in (
        ("prompt", ""), ("response", ""), ("policy", ""), ("review", ""), ("truncated", False),
        ("periodic_tail", False),
    ):  # fmt: skip
        given = name in table.column_names
        columns[name] = table[name] if given else pa.repeat(empty, table.num_rows)
    return pa.table(columns)


def candidate_log_probs(
    task: Task, candidates: Output, judges: Sequence[Policy], stacks: Sequence[Output]
) -> Output:
    """How likely the base model and then each of the judges find each text.

    Leaves float32 `[1 + num_judges, num_texts]`.
    """
    work = partial(
        write_candidate_log_probs, base=task.base, workdir=task.run.workdir,
        batch_size=2 * task.config.train.batch_size,
    )  # fmt: skip
    return task.run.step(
        "implicit_rewards", "improvement/log_probs.npy", work, candidates, *stacks,
        judges=[dataclasses.asdict(policy) for policy in judges],
        stacks={stack.path.name: stack.options["adapter_names"] for stack in stacks},
        also=task.network, all_processes=True,
    )  # fmt: skip


def write_candidate_log_probs(
    path: Path,
    scratch: Path,
    candidates: Output,
    *_: Output,
    base: BaseModel,
    workdir: Path,
    batch_size: int,
    judges: Sequence[Mapping[str, Any]],
    stacks: dict[str, list[str]],
) -> None:
    """Computes them; a text that was cut has no end token."""
    table = read_table(candidates.path)
    tokens = with_boundary(
        *token_ids(
            base.tokenizer, base.format(table["prompt"].to_pylist()), table["response"].to_pylist(),
            table["truncated"].to_pylist(),
        )
    )  # fmt: skip
    policies = [Policy(**values) for values in judges]
    stack, _ = stacked(adapters_of(policies, stacks, workdir, base), base.lora)
    adapters = [jax.tree.map(lambda leaf, n=n: leaf[n], stack) for n in range(len(policies))]
    found = compute_log_probs(
        base, [None, *adapters], tokens, batch_size, scratch, "implicit rewards"
    )
    if is_main_process():
        np.save(path, found)
