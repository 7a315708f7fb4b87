"""The options of a run: each declared once, with its default, its source and what is valid.

A config file in `configs/` starts from `default_config(METHOD)` and changes what differs;
`paretohqd options METHOD` prints what there is to change.
"""

from __future__ import annotations

from paretohqd_jax.config.methods import (
    METHODS,
    check_config,
    check_supply,
    default_config,
    options_of,
)
from paretohqd_jax.config.objectives import (
    names_in,
    objective_names,
    parse_preferences,
    split_model,
)
from paretohqd_jax.config.options import Option, Valid, check_options, require

__all__ = [
    "METHODS",
    "Option",
    "Valid",
    "check_config",
    "check_options",
    "check_supply",
    "default_config",
    "names_in",
    "objective_names",
    "options_of",
    "parse_preferences",
    "require",
    "split_model",
]
