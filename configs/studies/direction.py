"""The method's rule, linear scalarisation and the Chebyshev distance, by the shape of the front.

    python -m paretohqd_jax.main --config=configs/studies/direction.py --workdir=runs/direction \
        --config.data.source=alpaca_eval_scored.jsonl.gz

Bulging and hollow fronts and the data. Each rule chooses from the same pool of first layers, which
changes the rule alone, and from all rows, which says how it does without a pool.
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
        "rule=ray", "rule=weighted_sum", "rule=chebyshev,min_pool_size=1100",
        "rule=ray,pool=all", "rule=weighted_sum,pool=all", "rule=chebyshev,pool=all",
    )  # fmt: skip
    return config
