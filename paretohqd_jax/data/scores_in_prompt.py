"""Scores as text in a prompt, by Rewards-in-Context: `<rm1_score> 1.2 <rm2_score> -0.3`.

They end the user's words; the mark of the answer's turn follows as in any prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

TAG = "<rm1_score>"  # that of the first score
SCORE = re.compile(r"<rm\d+_score> (-?\d+\.\d)")
DECIMALS = 1


def words_with(scores: Sequence[float]) -> str:
    """A text with `{prompt}` in it once that gives, or asks for, scores; halves round to even."""
    rounded = np.round(scores, DECIMALS) + 0.0  # no -0.0
    written = (f"<rm{number}_score> {score:.1f}" for number, score in enumerate(rounded, 1))
    return " ".join(["{prompt}", *written])


def scores_in(prompt: str) -> list[float]:
    """The scores that `words_with` has put into a prompt; none where there are none."""
    start = prompt.rfind(TAG)
    return [float(score) for score in SCORE.findall(prompt[start:])] if start >= 0 else []
