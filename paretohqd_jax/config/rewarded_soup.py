"""The options of rewarded soups: of models that MORLHF trains, of one reward each."""

import math

from ml_collections import ConfigDict

from paretohqd_jax.config import morlhf
from paretohqd_jax.config.dpo_soup import AVERAGE
from paretohqd_jax.config.options import OURS, Option, Valid, require

MOST_SHARE = 10  # of a model in a soup; what it has learnt by chance counts as often
OWN_WEIGHT = Option(
    1.0,
    Valid("well above 1 / M, of M reward models, and at most 1", lambda value: 0 < value <= 1),
    OURS,
    "Of a model's own reward among those that it learns from; the others share the rest. Below 1 "
    "soups are bone soups (arXiv 2502.10762, where it is 0.6, 0.7 or 0.8).",
)
OPTIONS = {**morlhf.OPTIONS, "rewarded_soup": {"average": AVERAGE, "own_weight": OWN_WEIGHT}}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    morlhf.check(config)
    least = least_own_weight(len(config.rewards.models))
    why = f"below that a soup takes over {MOST_SHARE} times what a model has learnt, noise included"
    fits = config.rewarded_soup.own_weight >= least
    require(config, "rewarded_soup.own_weight", fits, f"at least {least:.3f}; {why}")


def least_own_weight(num_objectives: int) -> float:
    """The least w, in thousandths, with which no model's share in a soup is above MOST_SHARE.

    The largest is that of a model where its own objective has all weight, (M - 2 + w) / (M w - 1).
    """
    least = (num_objectives - 2 + MOST_SHARE) / (MOST_SHARE * num_objectives - 1)
    return math.ceil(1000 * least) / 1000
