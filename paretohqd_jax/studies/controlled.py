"""A controlled task: texts of syllables, rewards by programs, a trade-off in closed form.

Syllables are of one class per objective and one more, the filler. The reward of objective m is
s_m^p, where s_m is the share of its class among the syllables of a response. Shares sum to 1 at
most, so what can be reached is sum_m r_m^(1/p) <= 1: a bulging front for p < 1, a flat one for
p = 1, a hollow one for p > 1. The judge is exact; noise is on the scores of the data alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.data.scores_in_prompt import words_with
from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.pretraining import HIDDEN_SIZE, pretrain

FRONTS = {"bulging": 0.5, "flat": 1.0, "hollow": 2.0}  # the exponent p of each
CONSONANTS = "bdfgklmnprst"  # one begins all syllables of a class
VOWELS = ("a", "e", "i", "o", "u", "ai", "au", "oi")
TOPICS = ("dawn", "dusk", "rain", "snow", "wind", "hill", "lake", "moon", "star", "tree", "bird",
          "song")  # fmt: skip
TOPICS_PER_PROMPT = 3
PROMPT_FORMAT = "{prompt} :"
MAX_OBJECTIVES = len(CONSONANTS) - 1
ROWS_PER_PROMPT = 10
LENGTHS = (8, 16)  # syllables of a response
CONCENTRATION, FILLER_CONCENTRATION = 0.7, 1.05  # of the shares: few rows are near the front
NUM_POINTS = 10_001  # of the front
MAX_SCORE = 10  # in prompts; standardised rewards are nearer to 0


def exponent_of(front: str | float) -> float:
    """The exponent p of a front by its name, or p itself; raises InputError for 0 or less."""
    if front in FRONTS:
        return FRONTS[front]
    try:
        exponent = float(front)
    except (TypeError, ValueError):
        exponent = math.nan
    if not 0 < exponent < math.inf:
        raise InputError(
            f"front {front!r}: use one of {', '.join(FRONTS)}, or the exponent of the shares, a "
            "number above 0"
        )
    return exponent


def check_objectives(num_objectives: int) -> None:
    """Raises InputError for a number of objectives that the task does not have."""
    if not isinstance(num_objectives, int) or not 2 <= num_objectives <= MAX_OBJECTIVES:
        raise InputError(
            f"{num_objectives!r} objectives: the controlled task has 2 to {MAX_OBJECTIVES}"
        )


def check_task(num_objectives: int, noise: float, num_rows: int, seed: int) -> None:
    """Raises InputError for a task that cannot be."""
    check_objectives(num_objectives)
    most = ROWS_PER_PROMPT * len(TOPICS) ** TOPICS_PER_PROMPT
    if not 0 <= noise < math.inf:
        raise InputError(f"noise={noise}: give a standard deviation of the scores, 0 or more")
    if not 1 <= num_rows <= most:
        raise InputError(f"rows={num_rows}: the controlled task has 1 to {most}")
    if seed < 0:
        raise InputError(f"seed={seed}: give the data a seed of 0 or more")


def objective_name(objective: int) -> str:
    """What an objective is called: "b" is for syllables that begin with b."""
    return CONSONANTS[objective]


def syllables(syllable_class: int) -> list[str]:
    """The syllables of one class; that of number `num_objectives` is the filler."""
    return [CONSONANTS[syllable_class] + vowel for vowel in VOWELS]


def vocabulary(num_objectives: int) -> list[str]:
    """All words of the task."""
    return [word for number in range(num_objectives + 1) for word in syllables(number)]


def prompts(num_prompts: int) -> list[str]:
    """Different prompts of some topics each."""
    size = len(TOPICS)
    return [
        " ".join(TOPICS[number // size**place % size] for place in range(TOPICS_PER_PROMPT))
        for number in range(num_prompts)
    ]


def rows(
    num_objectives: int, exponent: float, noise: float, num_rows: int, seed: int
) -> list[dict[str, Any]]:
    """Responses with a score per objective: the reward, with normal noise of that deviation.

    The texts do not depend on `exponent` and `noise`. Any two responses to a prompt are a pair.
    """
    check_task(num_objectives, noise, num_rows, seed)
    exponent = exponent_of(exponent)
    random = np.random.default_rng(seed)
    num_prompts = -(-num_rows // ROWS_PER_PROMPT)
    concentrations = [CONCENTRATION] * num_objectives + [FILLER_CONCENTRATION]
    classes = np.array([syllables(number) for number in range(num_objectives + 1)])
    asked, responses = prompts(num_prompts), []
    for _ in range(num_rows):
        chosen = random.choice(
            num_objectives + 1, random.integers(*LENGTHS, endpoint=True),
            p=random.dirichlet(concentrations),
        )  # fmt: skip
        responses.append(" ".join(classes[chosen, random.integers(len(VOWELS), size=len(chosen))]))
    rewards = np.stack(
        [reward(number, exponent, asked, responses) for number in range(num_objectives)], axis=1
    )
    scores = rewards + noise * np.random.default_rng((seed, 1)).normal(size=rewards.shape)
    names = [objective_name(number) for number in range(num_objectives)]
    return [
        {"prompt": asked[row // ROWS_PER_PROMPT], "response": response}
        | dict(zip(names, scores[row].tolist(), strict=True))
        for row, response in enumerate(responses)
    ]


def reward(
    objective: int, exponent: float, prompts: Sequence[str], responses: Sequence[str]
) -> np.ndarray:
    """The judge: the share of the objective's syllables in each response to the power `exponent`.

    float64 `[num_rows]`; words that are no syllables of the task count as filler.
    """
    exponent = exponent_of(exponent)
    own = set(syllables(objective))
    words = [response.split() for response in responses]
    shares = [sum(word in own for word in text) / max(len(text), 1) for text in words]
    return np.array(shares) ** exponent


@dataclass(frozen=True)
class PowerFront:
    """The true front: the rewards r >= 0 with sum_m r_m^(1/exponent) = 1 (see `evaluation.truth`).

    Attributes:
      num_objectives: M.
      exponent: p.
    """

    num_objectives: int
    exponent: float

    def __post_init__(self) -> None:
        check_objectives(self.num_objectives)
        exponent_of(self.exponent)

    @property
    def reference(self) -> np.ndarray:
        """The origin, `[num_objectives]`."""
        return np.zeros(self.num_objectives)

    @property
    def volume(self) -> float:
        """Below the front, Gamma(1 + p)^M / Gamma(1 + p M) (Dirichlet's integral)."""
        p, m = self.exponent, self.num_objectives
        return math.exp(m * math.lgamma(1 + p) - math.lgamma(1 + p * m))

    @property
    def mean_volume(self) -> float:
        """Below the front of mean rewards: the convex hull of a hollow front is the simplex."""
        return max(self.volume, 1 / math.factorial(self.num_objectives))

    @property
    def points(self) -> np.ndarray:
        """Many points of the front, `[num_points, num_objectives]`; of two objectives in order."""
        if self.num_objectives == 2:
            first = np.linspace(0, 1, NUM_POINTS)
            shares = np.stack([first, 1 - first], axis=1)
        else:
            random = np.random.default_rng(0)
            shares = random.dirichlet(np.ones(self.num_objectives), NUM_POINTS)
        return shares**self.exponent

    def distance(self, rewards: np.ndarray) -> np.ndarray:
        """How much of the way from the origin through each reward to the front is left, `[...]`.

        Of rewards `[..., num_objectives]`; 0 on the front and 1 at the origin.
        """
        return 1 - (np.maximum(rewards, 0) ** (1 / self.exponent)).sum(axis=-1) ** self.exponent

    def towards(self, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The point of the front where the ray from `start`, above it, meets it; both `[M]`.

        An objective that reaches 0 stays there.
        """
        near, far = 0.0, float(np.max(start / np.maximum(direction, 1e-12)))
        for _ in range(100):
            middle = (near + far) / 2
            beyond = self.distance(start - middle * direction) < 0
            near, far = (middle, far) if beyond else (near, middle)
        return np.maximum(start - near * direction, 0)


def write_base(
    num_objectives: int, num_rows: int, seed: int, directory: Path, **words: Any
) -> None:
    """Trains the base model of a setting on all of its rows; no front and no noise matter to it.

    `words` are as of `pretrain`.
    """
    data = rows(num_objectives, 1.0, 0.0, num_rows, seed)
    asked = [PROMPT_FORMAT.format(prompt=row["prompt"]) for row in data]
    pretrain(directory, asked, [row["response"] for row in data], seed=seed, **words)


def write_base_of_scores(num_objectives: int, num_rows: int, seed: int, directory: Path) -> None:
    """Trains the same base model, which can read the scores of Rewards-in-Context as well."""
    write_base(num_objectives, num_rows, seed, directory, read_only=score_words(num_objectives))


def score_words(num_objectives: int, hidden_size: int = HIDDEN_SIZE) -> dict[str, np.ndarray]:
    """The words in which scores are written, with embeddings `[hidden_size]` of unit variance.

    Numbers are between random embeddings of whole ones: a model that has read some knows as much,
    that near ones are alike.
    """
    random = np.random.default_rng(0)
    whole = np.arange(-MAX_SCORE, MAX_SCORE + 1)
    anchors = random.normal(size=(len(whole), hidden_size))
    numbers = np.linspace(-MAX_SCORE, MAX_SCORE, 20 * MAX_SCORE + 1)
    between = np.stack([np.interp(numbers, whole, column) for column in anchors.T], axis=1)
    words = dict(zip(words_with(numbers).split()[2::2], between, strict=True))
    marks = words_with(np.zeros(num_objectives)).split()[1::2]
    return words | dict(zip(marks, random.normal(size=(num_objectives, hidden_size)), strict=True))
