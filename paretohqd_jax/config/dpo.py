"""The options of DPO: one model for each objective alone."""

from paretohqd_jax.config import preference

OPTIONS = preference.OPTIONS
check = preference.check
