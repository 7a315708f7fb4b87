"""A reward model on answers and on corrupted copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from paretohqd_jax.config import split_model
from paretohqd_jax.data.corruptions import (
    CORRUPTIONS,
    Answer,
    corrupt,
    rows_of_other_prompts,
)
from paretohqd_jax.data.groups import shared_responses
from paretohqd_jax.evaluation.robustness import Example, measure_corruption
from paretohqd_jax.rewards.scoring import score


def answers_for_copies(table: pa.Table, num_prompts: int, seed: int = 0) -> list[Answer]:
    """One answer each to random prompts: of pairs a chosen one, of groups the best, else any.

    Of `shared_responses` one is taken only where a prompt has no other.

    Args:
      table: pairs `prompt`, `chosen`; groups (see `data.groups`); or rows `prompt`, `response`.
      num_prompts: at most as many.
      seed: of the choice.
    """
    prompts, names = table["prompt"].to_pylist(), table.column_names
    if "responses" in names:
        groups = zip(table["responses"].to_pylist(), table["scores"].to_pylist(), strict=True)
        best_first = [
            [texts[row] for row in np.argsort(np.negative(scores), kind="stable")]
            for texts, scores in groups
        ]
    else:
        responses = table["chosen" if "chosen" in names else "response"].to_pylist()
        best_first = [[text] for text in responses]
    shared = shared_responses(
        (prompt, text) for prompt, texts in zip(prompts, best_first, strict=True) for text in texts
    )
    responses = [next((t for t in texts if t not in shared), texts[0]) for texts in best_first]
    order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    rows: dict[str, int] = {}
    for row in sorted(order, key=lambda row: responses[row] in shared):
        rows.setdefault(prompts[row], row)
    chosen = list(rows.values())[:num_prompts]
    others = rows_of_other_prompts([prompts[row] for row in chosen], seed)
    return [
        Answer(prompts[row], responses[row], "" if other is None else responses[chosen[other]])
        for row, other in zip(chosen, others, strict=True)
    ]


def measure_robustness(
    model: str,
    answers: Sequence[Answer],
    *,
    seed: int = 0,
    backend: str = "jax",
    store: Path | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Example]]:
    """How often a reward model prefers answers to corrupted copies of them.

    Args:
      model: as an entry of `config.rewards.models`.
      answers: to different prompts.
      seed: of the copies.
      backend: as of `score`.
      store: as of `score`.

    Returns:
      By kind of corruption what `measure_corruption` says; and the answer that loses the most to
      its copy, for kinds where one is not above it.
    """
    kinds = [
        kind for kind in CORRUPTIONS if kind != "temperature_2" or any(a.noise for a in answers)
    ]
    pairs = [
        (kind, row, copy)
        for kind in kinds
        for row, answer in enumerate(answers)
        if (copy := corrupt(kind, answer, seed)) is not None
    ]
    rewards = score(
        [answer.prompt for answer in answers] + [answers[row].prompt for _, row, _ in pairs],
        [answer.text for answer in answers] + [copy for _, _, copy in pairs],
        [f"reward={split_model(model)[1]}"], backend=backend, store=store,
        description="measuring robustness",
    )[:, 0].tolist()  # fmt: skip
    own, of_copies = rewards[: len(answers)], rewards[len(answers) :]
    figures, examples = {}, {}
    for kind in kinds:
        compared = [
            (own[row] - reward, row, copy, reward)
            for (its_kind, row, copy), reward in zip(pairs, of_copies, strict=True)
            if its_kind == kind
        ]
        differences = np.array([difference for difference, *_ in compared])
        figures[kind] = measure_corruption(kind, differences, len(answers) - len(compared))
        if compared and min(differences) <= 0:
            _, row, copy, reward = compared[differences.argmin()]
            answer = answers[row]
            examples[kind] = Example(answer.prompt, answer.text, copy, (own[row], reward))
    return figures, examples
