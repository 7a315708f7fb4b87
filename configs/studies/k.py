"""How many rows per preference: k = 50, 100, 150.

    python -m paretohqd_jax.main --config=configs/studies/k.py --workdir=runs/k \
        --config.data.source=alpaca_eval_scored.jsonl.gz

Everything else stays as it is, so the pool grows with k: it holds k rows per preference. Trains
nothing. docs/studies.md has what came out, here and in the files beside this one.
"""

from paretohqd_jax.config import default_config


def get_config():
    config = default_config("selection_study")
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.min_words = 8
    config.rewards.models = ("helpful", "brief")
    config.settings = (
        "k=100",
        "k=50",
        "k=150",
        "k=50,min_pool_size=1100",
        "k=150,min_pool_size=1100",
    )
    return config
