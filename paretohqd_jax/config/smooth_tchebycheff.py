"""The options of the smooth Tchebycheff scalarisation of the objectives' losses."""

from paretohqd_jax.config import preference
from paretohqd_jax.config.options import ABOVE_ZERO, OURS, Option

OPTIONS = {
    **preference.WITH_PREFERENCES,
    "smooth_tchebycheff": {
        "temperature": Option(
            0.1,
            ABOVE_ZERO,
            OURS,
            "mu: a large one weights the losses as dpo_lw does, a small one minimises the worst.",
        ),
    },
}
check = preference.check_with_preferences
