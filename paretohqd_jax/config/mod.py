"""The options of multi-objective decoding, which trains the models of DPO alone."""

from paretohqd_jax.config import preference

OPTIONS = preference.WITH_PREFERENCES
check = preference.check_with_preferences
