"""The options of DPO with loss weighting, a model for each preference."""

from paretohqd_jax.config import preference

OPTIONS = preference.WITH_PREFERENCES
check = preference.check_with_preferences
