"""The steps in which policies review answers of their own, and rewrite them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from paretohqd_jax.config.sipo import reviewer_weights
from paretohqd_jax.data.batches import token_counts
from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.refinement_prompts import cut, filled, read_refinement_prompt
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policy, mixtures, one_adapter_each
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.generation import answers_of
from paretohqd_jax.steps.task import Task, base_model, sampling_options

logger = logging.getLogger(__name__)


def refine(task: Task, drafts: Output, writers: Sequence[Policy], models: Output) -> Output | None:
    """The drafts rewritten, each by the policy that wrote it; None without refinement.

    Leaves `prompt`, `policy`, `review`, and `response`, the new one, with `truncated` and
    `periodic_tail`. Drafts whose review or rewrite says nothing are left out.

    Args:
      task: its `config.sipo` says how.
      drafts: `prompt`, `response` and `policy`, a label.
      writers: the policies that wrote them, mixtures of `models`.
      models: a stack with an adapter for each objective.
    """
    config = task.config.sipo
    if config.refinement == "none":
        return None
    prompts = refinement_prompts(task.config)
    if "review" in prompts:
        corners = one_adapter_each(models.path.name, np.eye(len(task.objectives)))
        weights = reviewer_weights(config.reviewer, len(task.objectives))
        reviewers = mixtures(corners, weights, "logits") * len(writers)
        drafts = _ask(task, "review", drafts, prompts["review"], writers, reviewers, models)
    return _ask(task, "rewrite", drafts, prompts["rewrite"], writers, writers, models)


def refinement_prompts(config: ConfigDict) -> dict[str, str]:
    """The texts of `review` and `rewrite`, as far as `config.sipo.refinement` asks for them.

    Raises:
      InputError: as `read_refinement_prompt`.
    """
    options, prompts = config.sipo, {}
    reviewed = options.refinement == "review"
    if reviewed:
        option = "config.sipo.review_prompt"
        prompts["review"] = read_refinement_prompt("sipo_review", options.review_prompt, option)
    if options.refinement != "none":
        name = "sipo_rewrite" if reviewed else "sipo_rewrite_alone"
        option = "config.sipo.rewrite_prompt"
        prompts["rewrite"] = read_refinement_prompt(name, options.rewrite_prompt, option)
    return prompts


def check_refinement(config: ConfigDict) -> None:
    """Raises InputError if the model's context cannot hold the prompts and what goes into them."""
    base = base_model(config)
    check_budget(base, [""], refinement_budget(config, base))


def refinement_budget(config: ConfigDict, base: BaseModel) -> dict[str, int]:
    """The tokens of each refining step, but for the user's prompt: the answer's counted, too."""
    response = config.generate.max_new_tokens
    review = config.sipo.review_tokens if config.sipo.refinement == "review" else 0
    empty = {"prompt": "", "response": "", "review": ""}
    budget = {}
    for name, template in refinement_prompts(config).items():
        text = base.format([filled(template, empty)])
        own = int(token_counts(base.tokenizer, text, [""])[0][0])
        budget[name] = own + response + review + (response if name == "rewrite" else 0)
    return budget


def check_budget(base: BaseModel, prompts: Sequence[str], budget: Mapping[str, int]) -> None:
    """Raises InputError if a step's tokens and those of the longest prompt exceed the context."""
    texts = [transcript(prompt) for prompt in prompts]
    sizes, _ = token_counts(base.tokenizer, texts, [""] * len(texts))
    text, own = texts[sizes.argmax()], int(sizes.max())
    whose = f"with the prompt {text[:40]!r}" if text else "even without the user's prompt"
    rows = "config.data.max_tokens, " if text else ""
    context = base.config.max_position_embeddings
    for name, size in budget.items():
        if size + own > context:
            raise InputError(
                f"the {name} of an answer takes up to {size + own} tokens, {whose} more than the "
                f"model's context of {context}; lower {rows}config.generate.max_new_tokens or "
                f"config.sipo.review_tokens, give a shorter config.sipo.{name}_prompt, or set "
                "config.sipo.refinement='none'"
            )


def _ask(
    task: Task,
    name: str,
    asked: Output,
    template: str,
    writers: Sequence[Policy],
    answering: Sequence[Policy],
    models: Output,
) -> Output:
    """One more answer for each row, by the policy at the place of the one that wrote it."""
    config = task.config
    sampling = sampling_options(config.generate)
    if name == "review":
        sampling["max_new_tokens"] = config.sipo.review_tokens
    return task.run.step(
        name, f"improvement/{name}s.parquet",
        partial(
            ask_again, base=task.base, workdir=task.run.workdir, name=name,
            batch_size=config.generate.batch_size,
        ),
        asked, models, template=template, writers=[policy.label for policy in writers],
        policies=[dataclasses.asdict(policy) for policy in answering],
        stacks={models.path.name: models.options["adapter_names"]},
        num_prompts=config.generate.num_prompts, sampling=sampling, seed=config.seed,
        also=task.network, all_processes=True,
    )  # fmt: skip


def ask_again(
    path: Path,
    scratch: Path,
    asked: Output,
    *_: Output,
    base: BaseModel,
    workdir: Path,
    name: str,
    template: str,
    writers: Sequence[str],
    policies: Sequence[Mapping[str, Any]],
    stacks: dict[str, list[str]],
    num_prompts: int,
    sampling: Mapping[str, Any],
    batch_size: int,
    seed: int,
) -> dict[str, int]:
    """Leaves the rows with a new `review`, or with a new `response`.

    Left out are those whose review says nothing, those whose answer does, and those for which the
    context has no room.
    """
    table, parts, num_tokens = read_table(asked.path), [], 0
    for writer, policy in zip(writers, policies, strict=True):
        rows, texts = _fitting(table.filter(pc.equal(table["policy"], writer)), template, base,
                               sampling["max_new_tokens"])  # fmt: skip
        if texts:
            answers = answers_of(
                [Policy(**policy)], stacks, workdir, base, texts, "jax", sampling, batch_size,
                scratch, seed, f"{name}_{writer}", "generate",
            )  # fmt: skip
            parts.append(with_answers(rows, answers, name))
            num_tokens += pc.sum(answers["num_tokens"]).as_py()
    said = pa.concat_tables(parts) if parts else table.slice(0, 0)
    logger.info("%s: %d of %d answers got one that says something", name, len(said), len(table))
    if not said.num_rows:
        raise InputError(
            f"every {name} of {table.num_rows} answers is empty or finds no room: the model does "
            f"not follow config.sipo.{name}_prompt; give another, or set "
            "config.sipo.refinement='none'"
        )
    if is_main_process():
        write_table(path, said)
    return {"tokens_generated": num_tokens}


def _fitting(
    rows: pa.Table, template: str, base: BaseModel, max_new_tokens: int
) -> tuple[pa.Table, list[str]]:
    """The rows whose filled in template leaves the context room for an answer, and these texts."""
    texts = [
        filled(template, row | {"prompt": transcript(row["prompt"])}) for row in rows.to_pylist()
    ]
    if not texts:
        return rows, texts
    counts, _ = token_counts(base.tokenizer, base.format(texts), [""] * len(texts))
    fits = counts + max_new_tokens <= base.config.max_position_embeddings
    return rows.filter(pa.array(fits)), [
        text for text, does in zip(texts, fits, strict=True) if does
    ]


def with_answers(rows: pa.Table, answers: pa.Table, name: str) -> pa.Table:
    """The rows with the answers to them, cut where a model went on by itself; no empty ones."""
    whole = answers["response"].to_pylist()
    texts = pa.array([cut(text) for text in whole], pa.string())
    if name == "review":
        rows = rows.append_column("review", texts)
    else:
        kept = [column for column in ("prompt", "policy", "review") if column in rows.column_names]
        rows = rows.select(kept).append_column("response", texts)
        ended = pa.array([cut(text) != text for text in whole], pa.bool_())
        for column in ("truncated", "periodic_tail"):
            flags = pc.and_not(answers[column].combine_chunks(), ended)
            rows = rows.append_column(column, flags)
    return rows.filter(pc.not_equal(texts, ""))
