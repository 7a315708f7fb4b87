"""A reward model's agreement with preferences that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.words import split_words
from paretohqd_jax.evaluation.agreement import measure_pairs
from paretohqd_jax.rewards.scoring import score


def measure_groups(
    model: str, groups: pa.Table, margin: float, store: Path | None = None
) -> dict[str, Any]:
    """The figures of a card: those of `measure_pairs`, and the rewards' mean and deviation.

    Args:
      model: the name or the folder of a reward model.
      groups: of responses to one prompt, see `data.groups`.
      margin: responses whose scores differ by less make no pair.
      store: as of `score`.
    """
    asked, responses = groups["prompt"].to_pylist(), groups["responses"].to_pylist()
    sizes = [len(group) for group in responses]
    prompts = [prompt for prompt, size in zip(asked, sizes, strict=True) for _ in range(size)]
    texts = [response for group in responses for response in group]
    rewards = score(prompts, texts, [f"reward={model}"], store=store, description="measuring")[:, 0]
    words = np.array([len(split_words(text)) for text in texts])
    scores = [np.array(group) for group in groups["scores"].to_pylist()]
    ends = np.cumsum(sizes)[:-1]
    measured = measure_pairs(np.split(rewards, ends), scores, np.split(words, ends), margin)
    return measured | {
        "num_responses": len(texts),
        "reward_mean": float(rewards.mean(dtype=np.float64)),
        "reward_std": float(rewards.std(dtype=np.float64)),
    }
