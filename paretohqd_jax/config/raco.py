"""The options of RACO: preference pairs, and a step that conflicting gradients agree on."""

from paretohqd_jax.config import preference
from paretohqd_jax.config.options import RACO, Option, Valid

OPTIONS = {
    **preference.WITH_PREFERENCES,
    "raco": {
        "conflict": Option(
            0.4,
            Valid("in [0, 1)", lambda value: 0 <= value < 1),
            RACO,
            "c, how far a step may turn towards the objective that the weights serve worst; 0: not "
            "at all, which is dpo_lw.",
        ),
    },
}
check = preference.check_with_preferences
