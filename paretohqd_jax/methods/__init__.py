"""The methods, by the names that `config.method` takes.

The module of a method has `check(config)`, which refuses options before any work; `align(config,
run)`, which does the work and returns the path of what a reader opens first; and `STEPS`, the names
of its steps.
"""

METHODS = {
    "paretohqd": "paretohqd_jax.methods.paretohqd",
    "sft": "paretohqd_jax.methods.sft",
    "best_of_n": "paretohqd_jax.methods.best_of_n",
    "dpo": "paretohqd_jax.methods.dpo",
    "dpo_soup": "paretohqd_jax.methods.soups",
    "mod": "paretohqd_jax.methods.mod",
    "dpo_lw": "paretohqd_jax.methods.dpo_lw",
    "modpo": "paretohqd_jax.methods.modpo",
    "mopo": "paretohqd_jax.methods.mopo",
    "raco": "paretohqd_jax.methods.raco",
    "smooth_tchebycheff": "paretohqd_jax.methods.smooth_tchebycheff",
    "sipo": "paretohqd_jax.methods.sipo",
    "rewarded_soup": "paretohqd_jax.methods.soups",
    "sft_soup": "paretohqd_jax.methods.soups",
    "ric": "paretohqd_jax.methods.ric",
    "morlhf": "paretohqd_jax.methods.morlhf",
    "reward_model": "paretohqd_jax.methods.reward_model",
}
