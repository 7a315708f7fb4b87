"""How large a pool: N_p from that of k rows to that of tens of thousands.

    python -m paretohqd_jax.main --config=configs/studies/pool_size.py --workdir=runs/pool_size \
        --config.data.source=alpaca_eval_scored.jsonl.gz

The Gaussian rewards are as many as the scored rows of HH-RLHF that the paper's line of work uses.
"""

from paretohqd_jax.config import default_config


def get_config():
    config = default_config("selection_study")
    config.populations = (
        "data", "configs.studies.populations:independent", "configs.studies.populations:opposed",
    )  # fmt: skip
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.min_words = 8
    config.rewards.models = ("helpful", "brief")
    sizes = (1100, 100, 500, 5000, 30_000)
    config.settings = tuple(f"min_pool_size={size}" for size in sizes)
    return config
