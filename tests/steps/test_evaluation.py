from __future__ import annotations

from paretohqd_jax.steps.evaluation import unrewarded_columns


def test_columns_that_tell_whether_rewards_are_exploited():
    scorers = [
        "words",
        "fit=relevance",
        "likelihood@models/other",
        "likelihood",
        "a=mine:relevance",
    ]
    assert unrewarded_columns(scorers) == {"relevance": "fit", "likelihood": "likelihood"}
    assert unrewarded_columns([]) == {}
