"""The steps that look for answers better than both responses of a pair in conflict."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
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
from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.overlap import echoed_share
from paretohqd_jax.data.pairs import in_conflict
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.collapse import collapse_causes
from paretohqd_jax.pareto.improvement import best_improvement, improves, is_worth_it
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policy, mixtures, one_adapter_each
from paretohqd_jax.rewards.likelihood import with_boundary
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.log_probs import compute_log_probs
from paretohqd_jax.steps.pairs import training_pairs
from paretohqd_jax.steps.refinement import check_budget, refinement_budget
from paretohqd_jax.steps.soups import average_factors
from paretohqd_jax.steps.stacks import adapters_of, stacked
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.preference_losses import implicit_rewards

MAX_ECHO = 0.5  # of an answer's words; more repeats the prompt
ORIGINAL, TAKEN = "original", "taken"
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
        seed=task.config.seed, also={"budget": budget},
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
            "so there is nothing to improve; raise config.pairs.conflict or "
            "config.pairs.per_prompt, lower config.pairs.margin, or use config.method='mod'"
        )
    prompts = pc.unique(table["prompt"])
    order = np.random.default_rng(step_seed(seed, "prompts")).permutation(len(prompts))
    chosen = prompts.take(pa.array(order[:num_prompts]))
    table = table.filter(pc.is_in(table["prompt"], chosen))
    longest = max(chosen.to_pylist(), key=len)
    check_budget(base, longest, budget, f"with the prompt {longest[:40]!r} ")
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
    soups = average_factors(task, "soups", weights, models)
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
    """Leaves each text of a prompt once of its source."""
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


def improve(
    task: Task,
    conflicts: Output,
    candidates: Output,
    log_probs: Output,
    judged: Output | None = None,
) -> Output:
    """The answer to each pair in conflict that is better than both of its responses, if any is.

    Leaves `improvement.parquet`: for each pair the originals and all candidates, with their
    implicit rewards and what became of them (`verdict`); counts in its metadata.

    Args:
      task: its `config.sipo` says how.
      conflicts: the pairs.
      candidates: texts.
      log_probs: of the texts.
      judged: the texts with the rewards of reward models, if these shall filter.
    """
    names = [policy["label"] for policy in log_probs.options["judges"]]
    return task.run.step(
        "improvement", "improvement.parquet", write_improvement,
        conflicts, judged or candidates, log_probs, objectives=task.objectives,
        judges=task.objectives + names[len(task.objectives) :], beta=task.config.dpo.beta,
        **{name: task.config.sipo[name] for name in ("filter", "margin")},
    )  # fmt: skip


def write_improvement(
    path: Path,
    scratch: Path,
    conflicts: Output,
    candidates: Output,
    log_probs: Output,
    *,
    objectives: Sequence[str],
    judges: Sequence[str],
    beta: float,
    filter: str,
    margin: float,
) -> None:
    """Judges the candidates of each pair; an InputError says which reward bound if none is left."""
    pairs, texts = read_table(conflicts.path), read_table(candidates.path)
    likelihoods = np.load(log_probs.path)
    implicit = implicit_rewards(likelihoods[1:], likelihoods[0], beta).T
    names, rewards = judges, implicit
    if filter == "rewards":
        names, rewards = objectives, rewards_matrix(texts, objectives, candidates.path)
        spread = rewards.std(axis=0)
        rewards = rewards / np.where(spread > 0, spread, 1.0)
    number, answers = _by_prompt(texts)
    unfit, sources = _unfit(texts), texts["source"].to_pylist()
    rows: list[tuple[int, int, str, str, list[str]]] = []  # pair, text, source, verdict, fails
    for pair, row in enumerate(pairs.select(["prompt", *PLACES]).to_pylist()):
        originals = [number[row["prompt"], row[place]] for place in PLACES]
        own = answers.get(row["prompt"], [])
        verdicts, above = judge(
            rewards[own], rewards[originals], [unfit[text] for text in own],
            [sources[text] for text in own], [texts["policy"][text].as_py() for text in own],
            margin if filter != "none" else None,
        )  # fmt: skip
        rows += [
            (pair, text, place, ORIGINAL, []) for text, place in zip(originals, PLACES, strict=True)
        ]
        rows += [
            (pair, text, sources[text], verdict, [names[n] for n in np.flatnonzero(~is_above)])
            for text, verdict, is_above in zip(own, verdicts, above, strict=True)
        ]
    columns = [pa.array(values) for values in zip(*rows, strict=True)]
    table = pa.table(
        dict(zip(("pair", "text", "source", "verdict", "fails"), columns, strict=True))
    )
    facts = count_verdicts(table, names) | {"filter": filter, "margin": margin}
    facts["prompts"] = len(pc.unique(pairs["prompt"]))
    _tell(facts)
    kept = ("prompt", "response", "policy", "review", "truncated")
    for name in kept:
        table = table.append_column(name, texts[name].take(table["text"].combine_chunks()))
    of_text = table["text"].to_numpy()
    for name, values in zip(judges, implicit.T, strict=True):
        table = table.append_column(f"implicit {name}", pa.array(values[of_text], pa.float32()))
    if filter == "rewards":
        for name in objectives:
            table = table.append_column(name, texts[name].take(table["text"].combine_chunks()))
    write_table(path, table.replace_schema_metadata({"improvement": json.dumps(facts)}))


def _by_prompt(texts: pa.Table) -> tuple[dict[tuple[str, str], int], dict[str, list[int]]]:
    """The rows of originals by prompt and response, and those of the candidates by prompt."""
    originals, answers = {}, {}
    columns = (texts[name].to_pylist() for name in ("prompt", "response", "source"))
    for row, (prompt, response, source) in enumerate(zip(*columns, strict=True)):
        if source == ORIGINAL:
            originals[prompt, response] = row
        else:
            answers.setdefault(prompt, []).append(row)
    return originals, answers


def _unfit(texts: pa.Table) -> list[str]:
    """Why no model shall learn a text, or ""."""
    causes = collapse_causes(texts["response"].to_pylist(), texts["periodic_tail"].to_pylist())
    found = []
    for cause, row in zip(causes, texts.select(["prompt", "response"]).to_pylist(), strict=True):
        echoed = echoed_share(transcript(row["prompt"]), row["response"]) > MAX_ECHO
        found.append(f"collapsed: {cause}" if cause else "repeats the prompt" * echoed)
    return found


def judge(
    rewards: np.ndarray,
    originals: np.ndarray,
    unfit: Sequence[str],
    sources: Sequence[str],
    writers: Sequence[str],
    margin: float | None,
) -> tuple[list[str], np.ndarray]:
    """What becomes of the candidates of a pair.

    A rewrite stands for its draft if any reward is larger; what is not above both originals under
    every reward is left out; of the rest, the one with the largest sum of rewards is taken.

    Args:
      rewards: `[C, R]`.
      originals: `[2, R]`.
      unfit: `[C]`, why one cannot be taken, or "".
      sources: `[C]`, "draft" or "rewrite".
      writers: `[C]`, a draft and its rewrite have the same.
      margin: of `improves`; None for no filter.

    Returns:
      A verdict each, TAKEN for one at most, and bool `[C, R]`, where they are above the originals.
    """
    verdicts = list(unfit)
    drafts = {
        writer: place
        for place, (writer, source) in enumerate(zip(writers, sources, strict=True))
        if source == "draft" and not verdicts[place]
    }
    for place, (writer, source) in enumerate(zip(writers, sources, strict=True)):
        if source == "rewrite" and not verdicts[place] and writer in drafts:
            better = is_worth_it(rewards[place], rewards[drafts[writer]])
            if better:
                verdicts[drafts[writer]] = "rewritten"
            else:
                verdicts[place] = "no better than its draft"
    above = improves(rewards, originals, margin or 0.0)
    in_running = np.array([not verdict for verdict in verdicts], bool)
    passes = in_running[:, None] & (above if margin is not None else np.ones_like(above))
    best = best_improvement(rewards, passes)
    for place in np.flatnonzero(in_running).tolist():
        survives = passes[place].all()
        verdicts[place] = "another is better" if survives else "not above the originals"
    if best is not None:
        verdicts[best] = TAKEN
    return verdicts, above


def count_verdicts(table: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """How many pairs, candidates and improved pairs there are, and what became of candidates.

    `fails` counts for each reward the candidates that it keeps out, and those it alone keeps out.
    """
    candidates = table.filter(pc.not_equal(table["verdict"], ORIGINAL))
    verdicts = Counter(candidates["verdict"].to_pylist())
    kept_out = candidates.filter(pc.equal(candidates["verdict"], "not above the originals"))
    fails = kept_out["fails"].to_pylist()
    return {
        "pairs": len(pc.unique(table["pair"])),
        "candidates": candidates.num_rows,
        "sources": dict(Counter(candidates["source"].to_pylist())),
        "improved": verdicts.get(TAKEN, 0),
        "verdicts": dict(sorted(verdicts.items())),
        "fails": {
            name: {
                "failed": sum(name in each for each in fails),
                "failed_alone": sum(each == [name] for each in fails),
            }
            for name in names
        },
    }


def _tell(facts: Mapping[str, Any]) -> None:
    """Logs the counts; raises InputError where no pair is improved."""
    told = ", ".join(f"{count} {verdict}" for verdict, count in facts["verdicts"].items())
    logger.info(
        "%d of %d pairs in conflict are improved; of %d answers: %s",
        facts["improved"], facts["pairs"], facts["candidates"], told,
    )  # fmt: skip
    if not facts["improved"]:
        bound = ", ".join(
            f"{count['failed']} by {name!r} ({count['failed_alone']} by it alone)"
            for name, count in facts["fails"].items()
            if count["failed"]
        )
        raise InputError(
            f"none of {facts['candidates']} answers to {facts['pairs']} pairs in conflict can be "
            f"learnt from: {told or 'there are none'}; not above both originals are "
            f"{bound or 'none'}. Ask for fewer rewards (config.sipo.soup_weights='') or a lower "
            "config.sipo.margin, draw more answers (config.generate.temperature=1, more "
            "config.sipo.weights), train the DPO models for longer, or go without "
            "(config.sipo.filter='none')"
        )
