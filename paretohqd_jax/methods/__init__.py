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
    "reward_model": "paretohqd_jax.methods.reward_model",
}
