"""The options of SIPO: answers that mixtures of DPO models improve, and a second alignment."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from paretohqd_jax.config import checks, preference, shared
from paretohqd_jax.config.engine import ENGINE
from paretohqd_jax.config.objectives import parse_preferences
from paretohqd_jax.config.options import (
    ABOVE_ZERO,
    OURS,
    SIPO,
    TEXT,
    Option,
    at_least,
    changed,
    one_of,
    require,
)
from paretohqd_jax.errors import InputError
from paretohqd_jax.pareto import preference_grid

INNER = "inner"
SAMPLING = shared.sampling(0.0, "of all models")
GENERATE = {
    **ENGINE,
    "num_prompts": Option(
        2500, at_least(1), SIPO, "Random training prompts with a conflict, to be answered better."
    ),
    **SAMPLING,
    "temperature": changed(SAMPLING["temperature"], 0.0, SIPO),
}
OPTIONS = {
    **preference.WITH_PREFERENCES,
    "generate": GENERATE,
    "sipo": {
        "weights": Option(
            INNER,
            TEXT,
            SIPO,
            'Of the mixtures of DPO models that write answers: "inner", all in steps of 0.2 that '
            "leave no objective out, or as config.preferences.",
        ),
        "refinement": Option(
            "review",
            one_of("review", "rewrite", "none"),
            SIPO,
            'Of drafts: "review", suggestions are asked for and the draft is rewritten by them; '
            '"rewrite", it is rewritten at once.',
        ),
        "reviewer": Option(
            "",
            TEXT,
            OURS,
            'The weights of the mixture that reviews, as "1,0", which SIPO\'s code has; "": equal.',
        ),
        "review_prompt": Option(
            "",
            TEXT,
            OURS,
            'A text file with {prompt} and {response} in it; "": the package\'s.',
        ),
        "rewrite_prompt": Option(
            "", TEXT, OURS, 'The same, with {review} too where there is one; "": the package\'s.'
        ),
        "review_tokens": Option(256, at_least(1), OURS, "Of a review, at most."),
        "filter": Option(
            "implicit",
            one_of("implicit", "rewards", "none"),
            SIPO,
            'The rewards under which an answer must be above both originals: "implicit" ones of '
            'the DPO models and of soups between them, or "rewards" of config.rewards.models; '
            '"none": the answer of the largest sum of implicit rewards is taken, good or not.',
        ),
        "soup_weights": Option(
            INNER, TEXT, SIPO, 'Of soups whose implicit rewards count too, as weights; "": none.'
        ),
        "average": Option(
            "updates",
            one_of("updates", "factors"),
            OURS,
            'Of soups, as config.dpo_soup.average; SIPO\'s code averages "factors".',
        ),
        "margin": Option(
            0.0,
            at_least(0),
            OURS,
            "By how much an answer must be above the originals: in implicit rewards, or in "
            "standard deviations of the reward models' rewards.",
        ),
        "losers": Option(
            "weaker",
            one_of("weaker", "both"),
            SIPO,
            "The originals that an answer is preferred to: each objective's weaker one (paper), or "
            "both (code).",
        ),
        "nll_weight": Option(0.1, at_least(0), SIPO, "Of -log p per token of the better answer."),
        "nll_length": Option(
            "response",
            one_of("response", "padded"),
            OURS,
            'What it is divided by: the tokens of the answer, or "padded", those of the prompt and '
            "of the longer response, as in SIPO's code.",
        ),
        "num_steps": Option(200, at_least(1), OURS, "Of the second alignment."),
        "learning_rate": Option(5e-6, ABOVE_ZERO, SIPO, "Of the second alignment."),
    },
}


def mixture_weights(text: str, num_objectives: int) -> np.ndarray:
    """The weights of mixtures as options write them, float64 `[num_mixtures, num_objectives]`.

    Raises:
      InputError: as `parse_preferences`.
    """
    if not text:
        return np.empty((0, num_objectives))
    if text != INNER:
        return parse_preferences(text, num_objectives)
    steps = max(5, num_objectives)
    grid = preference_grid(math.comb(steps + num_objectives - 1, steps), num_objectives)
    return grid[(grid > 0).all(axis=1)]


def reviewer_weights(text: str, num_objectives: int) -> np.ndarray:
    """The weights of the one mixture that reviews, `[1, num_objectives]`."""
    return parse_preferences(text or "1", num_objectives)


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    preference.check_with_preferences(config)
    checks.check_train(config, config.sipo.num_steps)
    require(config, "sipo.weights", config.sipo.weights != "", "'inner', or at least one mixture")
    conflict = config.pairs.conflict != 0
    require(
        config, "pairs.conflict", conflict, "more than 0, or -1: SIPO improves pairs in conflict"
    )
    for name in ("weights", "soup_weights"):
        _parsed(config, name, mixture_weights)
    one = len(_parsed(config, "reviewer", reviewer_weights)) == 1
    require(config, "sipo.reviewer", one, "the weights of one mixture")
    ours = config.generate.engine == "jax"
    require(config, "generate.engine", ours, "'jax': no serving engine mixes logits")
    still = config.lora.dropout == 0
    require(config, "lora.dropout", still, "0: it would fall on the models beneath, too")


def _parsed(
    config: ConfigDict, name: str, weights_of: Callable[[str, int], np.ndarray]
) -> np.ndarray:
    """The weights that `config.sipo` has by this name; an error says which they are."""
    try:
        return weights_of(config.sipo[name], len(config.rewards.models))
    except InputError as error:
        raise InputError(f"config.sipo.{name}={config.sipo[name]!r}: {error}") from error
