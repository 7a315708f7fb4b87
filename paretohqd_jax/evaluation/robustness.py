"""Whether a reward model prefers an answer to corrupted copies of it, and when it counts as fooled.

Copies are those of `data.corruptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from paretohqd_jax.data.conversations import transcript
from paretohqd_jax.data.corruptions import CORRUPTIONS
from paretohqd_jax.evaluation.bootstrap import interval, resample

# The least share of answers that a model must prefer to their copies.
LEAST = dict.fromkeys(CORRUPTIONS, 0.90) | {"shuffled": 0.95, "other_prompt": 0.95}
NUM_PROMPTS = 200  # that are measured unless told otherwise
FEWEST_PAIRS = 20  # with fewer there is no verdict
SOUND, UNCLEAR, FOOLED, TOO_FEW = "sound", "unclear", "fooled", "too few pairs"
LONGEST_QUOTE = 120  # characters


class Example(NamedTuple):
    """An answer that is not preferred to a corrupted copy, by the rewards of both."""

    prompt: str
    answer: str
    copy: str
    rewards: tuple[float, float]


def measure_corruption(kind: str, differences: np.ndarray, num_skipped: int) -> dict[str, Any]:
    """How often answers are preferred to their corrupted copies.

    Args:
      kind: of the corruption.
      differences: `[num_pairs]`, reward of an answer less that of its copy, one answer a prompt.
      num_skipped: answers without a copy.

    Returns:
      `preferred`, a share (ties count half), with its `interval` over prompts, both None without a
      pair; `num_pairs` and `num_skipped`; `least`, what is due; and `verdict`: SOUND where the
      share is at least that, FOOLED where the whole interval is below, UNCLEAR between, and TOO_FEW
      for less than `FEWEST_PAIRS`.
    """
    differences = np.asarray(differences, dtype=np.float64)
    right, least = (np.sign(differences) + 1) / 2, LEAST[kind]
    measured = {"preferred": None, "interval": None, "num_pairs": len(right)}
    verdict = TOO_FEW
    if len(right):
        measured["preferred"] = float(right.mean())
        shares = resample(len(right)).prompts @ right
        measured["interval"] = interval(shares.round(9))  # a sum of 1 / n is 1 but for rounding
    if len(right) >= FEWEST_PAIRS:
        verdict = SOUND if measured["preferred"] >= least else UNCLEAR
        if measured["interval"][1] < least:
            verdict = FOOLED
    return measured | {"num_skipped": num_skipped, "least": least, "verdict": verdict}


def robustness_lines(
    name: str, figures: Mapping[str, Mapping[str, Any]], examples: Mapping[str, Example]
) -> list[str]:
    """In words, which corrupted copies a reward model is fooled by, each with an example.

    Args:
      name: of the model.
      figures: by kind, from `measure_corruption`.
      examples: by kind, where an answer is not preferred to its copy.
    """
    lines = []
    for kind, found in figures.items():
        words, count = CORRUPTIONS[kind].words, found["num_pairs"]
        if found["verdict"] == TOO_FEW:
            lines.append(
                f"{name}: {words}: {count} answers have such a copy, too few for a verdict "
                f"({FEWEST_PAIRS})"
            )
        elif found["verdict"] == FOOLED:
            low, high = found["interval"]
            lines.append(
                f"warning: {name}: fooled by {words}: it prefers the answer in "
                f"{100 * found['preferred']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {count} "
                f"prompts, {100 * found['least']:.0f} % are due; what is trained or judged by it "
                "can rise and get worse"
            )
            lines += _quoted(examples[kind])
    return lines


def _quoted(example: Example) -> list[str]:
    starts = ["  prompt", *(f"{reward:8.3f}" for reward in example.rewards)]
    texts = [transcript(example.prompt).strip(), example.answer, example.copy]
    return [
        f"  {start}  {text[:LONGEST_QUOTE]!r}" + ("..." if len(text) > LONGEST_QUOTE else "")
        for start, text in zip(starts, texts, strict=True)
    ]
