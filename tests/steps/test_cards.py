"""The card of a model tells what the run directory knows of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from paretohqd_jax.policies import Policies, one_adapter_each
from paretohqd_jax.steps.cards import model_card


def test_a_card_tells_base_method_preference_format_data_and_measures(tmp_path):
    family = one_adapter_each("stage2", np.array([[0.25, 0.75], [1.0, 0.0]]))
    base = {"source": "org/base", "prompt_format": "{prompt}:\n"}
    run = Policies(["helpful", "brief"], base, {"stage2": []}, {"stage2": family})
    config = {"method": "paretohqd", "data": {"source": "rows.csv"}, "rewards": {"models": ["a"]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = (tmp_path, run, family[0])
    card = model_card(*told, "peft")
    assert card.startswith('---\nlibrary_name: "peft"\n')
    assert '\nbase_model: "org/base"\n---\n' in card
    assert "* preference: helpful 0.25, brief 0.75\n" in card and "was not measured" in card
    assert "chat_template.jinja" in card and "TEXT" not in model_card(*told, "transformers")
    assert '* prompt format: "{prompt}:\\n"\n* data: rows.csv\n' in card
    asking = dataclasses.replace(family[0], prompt="{prompt} <helpful> 0.25")
    asks = '* asked in words of its own, the user\'s at {prompt}: "{prompt} <helpful> 0.25"\n'
    assert asks in model_card(tmp_path, run, asking, "peft") and "own words" not in card
    model = {"label": family[0].label, "mean_rewards": [1, 2], "interval": [[0, 1], [2, 3]]}
    points = {"objectives": run.objectives, "num_prompts": 9, "fronts": {"s": {"models": [model]}}}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/points.json").write_text(json.dumps(points))
    assert "on 9 held-out prompts" in (card := model_card(*told, "peft"))
    assert "* brief: 2 [1, 3]" in card
