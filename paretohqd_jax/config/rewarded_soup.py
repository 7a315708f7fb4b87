"""The options of rewarded soups: of models that MORLHF trains, of one reward each."""

from ml_collections import ConfigDict

from paretohqd_jax.config import morlhf
from paretohqd_jax.config.dpo_soup import AVERAGE
from paretohqd_jax.config.options import OURS, Option, Valid, require

OWN_WEIGHT = Option(
    1.0,
    Valid("above 1 / M, of M reward models, and at most 1", lambda value: 0 < value <= 1),
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
    num_objectives, own = len(config.rewards.models), config.rewarded_soup.own_weight
    above = own == 1 or own > 1 / num_objectives
    require(config, "rewarded_soup.own_weight", above, f"above 1 / {num_objectives}")
