"""How large a pool: N_p from that of k rows to that of tens of thousands.

    python -m paretohqd_jax.main --config=configs/studies/pool_size.py --workdir=runs/pool_size \
        --config.data.source=alpaca_eval_scored.jsonl.gz

The rule is the method's; another stands after a colon, as in pool_size.py:chebyshev, and is
compared with the method's at its default size. The Gaussian rewards are as many as the scored rows
of HH-RLHF that the paper's line of work uses.
"""

from paretohqd_jax.config import default_config

POPULATIONS = ("bulging", "hollow", "independent", "opposed")


def get_config(rule: str = "ray"):
    config = default_config("selection_study")
    config.populations = (
        "data", *(f"configs.studies.populations:{name}" for name in POPULATIONS),
    )  # fmt: skip
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.min_words = 8
    config.rewards.models = ("helpful", "brief")
    sizes = (1100, 100, 500, 5000, 30_000)
    config.select.rule = rule
    config.settings = tuple(f"min_pool_size={size}" for size in sizes)
    if rule != "ray":
        config.settings = ("rule=ray,min_pool_size=1100", *config.settings)
    return config
