"""The step that finds, for a pair in conflict, an answer better than both of its responses."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.overlap import echoed_share
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto.improvement import best_improvement, improves, is_worth_it
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.conflicts import ORIGINAL, PLACES
from paretohqd_jax.steps.task import Task
from paretohqd_jax.training.preference_losses import implicit_rewards

MAX_ECHO = 0.5  # of an answer's words; more repeats the prompt
TAKEN = "taken"
SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),
        ("text", pa.int64()),
        ("source", pa.string()),
        ("verdict", pa.string()),
        ("fails", pa.list_(pa.string())),
    ]
)

logger = logging.getLogger(__name__)


def improve(task: Task, conflicts: Output, judged: Output, log_probs: Output) -> Output:
    """The answer to each pair in conflict that is better than both of its responses, if any is.

    Leaves `improvement.parquet`: for each pair the originals and all candidates, with their
    implicit rewards, those of the reward models and what became of them (`verdict`); counts in its
    metadata, of the answers taken also how many the reward models find above both originals.

    Args:
      task: its `config.sipo` says how.
      conflicts: the pairs.
      judged: the originals and the candidates, as `score_responses` leaves them.
      log_probs: of these texts.

    Raises:
      InputError: no pair has such an answer; says which reward bound. The file has its figures.
    """
    names = [policy["label"] for policy in log_probs.options["judges"]]
    improvement = task.run.step(
        "improvement", "improvement.parquet", write_improvement,
        conflicts, judged, log_probs, objectives=task.objectives,
        judges=task.objectives + names[len(task.objectives) :], beta=task.config.dpo.beta,
        **{name: task.config.sipo[name] for name in ("filter", "margin")},
    )  # fmt: skip
    check_improved(improvement.path)
    return improvement


def write_improvement(
    path: Path,
    scratch: Path,
    conflicts: Output,
    judged: Output,
    log_probs: Output,
    *,
    objectives: Sequence[str],
    judges: Sequence[str],
    beta: float,
    filter: str,
    margin: float,
) -> None:
    """Judges the candidates of each pair."""
    pairs, texts = read_table(conflicts.path), read_table(judged.path)
    likelihoods = np.load(log_probs.path)
    implicit = implicit_rewards(likelihoods[1:], likelihoods[0], beta).T  # [texts, judges]
    by_models = rewards_matrix(texts, objectives, judged.path)
    names, rewards = judges, implicit
    if filter == "rewards":
        spread = np.where(np.ptp(by_models, axis=0) > 0, by_models.std(axis=0), 1.0)
        names, rewards = objectives, by_models / spread
    table = judge_pairs(pairs, texts, rewards, names, None if filter == "none" else margin)
    facts = count_verdicts(table, names) | {"filter": filter, "margin": margin}
    facts["prompts"] = len(pc.unique(pairs["prompt"]))
    facts["improved_by_reward_models"] = num_improved(table, by_models)
    logger.info(
        "%d of %d pairs in conflict are improved, %d of them by the reward models, too; of %s: %s",
        facts["improved"], facts["pairs"], facts["improved_by_reward_models"],
        " and ".join(f"{count} {source}s" for source, count in facts["sources"].items()),
        _verdicts(facts),
    )  # fmt: skip
    of_text = table["text"].to_numpy()
    for name in ("prompt", "response", "policy", "review", "truncated"):
        table = table.append_column(name, texts[name].take(of_text))
    for kind, rewarded_by, values in (
        ("implicit", judges, implicit), ("reward", objectives, by_models)
    ):  # fmt: skip
        for name, column in zip(rewarded_by, values[of_text].T, strict=True):
            table = table.append_column(f"{kind} {name}", pa.array(column, pa.float32()))
    write_table(path, table.replace_schema_metadata({"improvement": json.dumps(facts)}))


def judge_pairs(
    pairs: pa.Table,
    texts: pa.Table,
    rewards: np.ndarray,
    names: Sequence[str],
    margin: float | None,
) -> pa.Table:
    """For each pair its originals and the candidates, with the verdict on them.

    Args:
      pairs: `prompt`, `chosen`, `rejected`.
      texts: as of `conflicts.gather_candidates`, with what has `collapsed`.
      rewards: of the texts, `[num_texts, num_rewards]`.
      names: of the rewards.
      margin: as of `judge`.

    Returns:
      `pair` and `text`, rows of these tables; `source`, "draft" or "rewrite", or the original's
      place in the pair; `verdict`; `fails`, the rewards under which it is not above the originals.
    """
    number, answers = _by_prompt(texts)
    unfit = _unfit(texts)
    sources, writers = texts["source"].to_pylist(), texts["policy"].to_pylist()
    rows: list[dict[str, Any]] = []
    for pair, row in enumerate(pairs.select(["prompt", *PLACES]).to_pylist()):
        originals = [number[row["prompt"], row[place]] for place in PLACES]
        own = answers.get(row["prompt"], [])
        verdicts, above = judge(
            rewards[own], rewards[originals], [unfit[text] for text in own],
            [sources[text] for text in own], [writers[text] for text in own], margin,
        )  # fmt: skip
        for text, place in zip(originals, PLACES, strict=True):
            rows.append({"pair": pair, "text": text, "source": place, "verdict": ORIGINAL})
        for text, verdict, is_above in zip(own, verdicts, above, strict=True):
            fails = [names[reward] for reward in np.flatnonzero(~is_above)]
            rows.append({"pair": pair, "text": text, "source": sources[text], "verdict": verdict,
                         "fails": fails})  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMA)


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
    found = []
    for row in texts.select(["prompt", "response", "collapsed"]).to_pylist():
        echoed = echoed_share(transcript(row["prompt"]), row["response"]) > MAX_ECHO
        told = f"collapsed: {row['collapsed']}" if row["collapsed"] else ""
        found.append(told or "repeats the prompt" * echoed)
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


def num_improved(table: pa.Table, rewards: np.ndarray) -> int:
    """Of how many pairs the answer taken is above both originals under every one of these rewards.

    `table` is that of `judge_pairs`; `rewards` of its texts, `[num_texts, num_rewards]`.
    """
    kinds = (pc.equal(table["verdict"], TAKEN), pc.equal(table["verdict"], ORIGINAL))
    taken, originals = (table.filter(kind) for kind in kinds)
    of_pair = originals["text"].to_numpy().reshape(-1, len(PLACES))[taken["pair"].to_numpy()]
    better = rewards[taken["text"].to_numpy()] > rewards[of_pair].max(axis=1)
    return int(better.all(axis=1).sum())


def counts(table: pa.Table) -> dict[str, Any]:
    """Those of `count_verdicts` and more, which `improvement.parquet` has in its metadata."""
    return json.loads(table.schema.metadata[b"improvement"])


def _verdicts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in facts["verdicts"].items())


def check_improved(path: Path) -> None:
    """Raises InputError where no pair is improved, which says which reward bound."""
    facts = counts(read_table(path))
    if facts["improved"]:
        return
    told = _verdicts(facts)
    bound = ", ".join(
        f"{count['failed']} by {name!r} ({count['failed_alone']} by it alone)"
        for name, count in facts["fails"].items()
        if count["failed"]
    )
    remedy = "draw more answers (config.generate.temperature=1, more config.sipo.weights)"
    if bound:
        told += f", which they fail {bound}"
        if facts["filter"] == "implicit":
            remedy += ", ask for fewer rewards (config.sipo.soup_weights='')"
        if facts["margin"]:
            remedy += ", lower config.sipo.margin"
        remedy += ", or go without a filter (config.sipo.filter='none')"
    raise InputError(
        f"none of {facts['candidates']} answers to {facts['pairs']} pairs in conflict is better "
        f"than both of a pair's responses: {told or 'there are none'}; {path.name} has their "
        f"rewards; {remedy}"
    )
