"""What the pool is made of: exact first layers, or what is easier to compute.

    python -m paretohqd_jax.main --config=configs/studies/pool.py --workdir=runs/pool \
        --config.data.source=alpaca_eval_scored.jsonl.gz

The layers of the first setting are exact: ranking all rows gives the same pool. Against them: the
layers of rewards rounded to one decimal, as Rewards-in-Context keeps them; as many rows of the
largest plain sum; only the layers that k rows need; and all rows, where the distance alone decides.
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
        "pool=layers", "pool=layers,decimals=1", "pool=sum", "pool=layers,min_pool_size=100",
        "pool=all",
    )  # fmt: skip
    return config
