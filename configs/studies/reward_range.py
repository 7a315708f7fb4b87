"""The box that rays are drawn in: its scope, and what one outlier does to it.

    python -m paretohqd_jax.main --config=configs/studies/reward_range.py \
        --workdir=runs/reward_range --config.data.source=alpaca_eval_scored.jsonl.gz

The outlier is one row, four ranges below all others in the first objective.
"""

from paretohqd_jax.config import default_config


def get_config():
    config = default_config("selection_study")
    config.data.scores = "helpful=log_odds(win_rate)"
    config.data.min_words = 8
    config.rewards.models = ("helpful", "brief")
    scopes = tuple(f"range_scope={scope}" for scope in ("data", "pareto", "quantile"))
    config.settings = (*scopes, *(f"{scope},outlier=4" for scope in scopes))
    return config
