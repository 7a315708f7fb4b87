"""The options of soups of DPO models."""

from paretohqd_jax.config import preference
from paretohqd_jax.config.options import OURS, Option, one_of

AVERAGE = Option(
    "updates",
    one_of("updates", "factors"),
    OURS,
    'What is averaged: "updates" of the models, exactly, or "factors", the matrices a and '
    "b apart, as in the code of SIPO and of Rewarded Soups.",
)
OPTIONS = {**preference.WITH_PREFERENCES, "dpo_soup": {"average": AVERAGE}}
check = preference.check_with_preferences
