"""Directions against linear scalarisation, on bulging and on hollow fronts and on the data.

    python -m paretohqd_jax.main --config=configs/studies/direction.py --workdir=runs/direction \
        --config.data.source=alpaca_eval_scored.jsonl.gz

The weighted sum chooses from the same pool of first layers, which differs from the method in the
rule alone, or from all rows, as one would without the method. With a pool of 500 rows too: depth is
what the distance to a ray does not see.
"""

from paretohqd_jax.config import default_config


def get_config():
    config = default_config("selection_study")
    config.populations = (
        "data", "configs.studies.populations:bulging", "configs.studies.populations:hollow",
    )  # fmt: skip
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.min_words = 8
    config.rewards.models = ("helpful", "brief")
    config.settings = (
        "rule=ray", "rule=weighted_sum", "rule=weighted_sum,pool=all", "rule=ray,min_pool_size=500",
        "rule=weighted_sum,min_pool_size=500",
    )  # fmt: skip
    return config
