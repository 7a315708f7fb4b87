"""The options of rewarded soups: of models that MORLHF trains, of one reward each."""

from paretohqd_jax.config import morlhf
from paretohqd_jax.config.dpo_soup import AVERAGE

OPTIONS = {**morlhf.OPTIONS, "rewarded_soup": {"average": AVERAGE}}
check = morlhf.check
