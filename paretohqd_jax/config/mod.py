"""The options of multi-objective decoding, which trains the models of DPO alone."""

from __future__ import annotations

import re

from ml_collections import ConfigDict

from paretohqd_jax.config import preference
from paretohqd_jax.config.options import OURS, SWITCH, Option, Valid, require

DIVERGENCE = re.compile(r"reverse_kl|forward_kl|jsd|alpha=0?\.\d*[1-9]\d*")
OPTIONS = {
    **preference.WITH_PREFERENCES,
    "mod": {
        "divergence": Option(
            "reverse_kl",
            Valid("reverse_kl, forward_kl, jsd or such as alpha=0.5", DIVERGENCE.fullmatch),
            OURS,
            "From the base model, which decides how distributions are mixed. DPO's own is "
            "reverse_kl.",
        ),
        "legacy_score": Option(
            False, SWITCH, OURS, "Mix by the score of MOD's authors' code, not exactly."
        ),
    },
}


def check(config: ConfigDict) -> None:
    """Checks the options against each other.

    Raises:
      InputError: names the option, its value and what would be valid.
    """
    preference.check_with_preferences(config)
    ours = config.generate.engine == "jax"
    require(config, "generate.engine", ours, "'jax': no serving engine mixes logits")
