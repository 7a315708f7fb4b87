"""A made-up run to draw and report: data, selection, evaluation, in any number of objectives."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from paretohqd_jax.evaluation.front import evaluate_fronts
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.pareto import preference_grid, select
from paretohqd_jax.policies import BASE, one_adapter_each


def made_up_run(objectives, num_preferences):
    random = np.random.default_rng(0)
    num_objectives = len(objectives)
    preferences = np.asarray(preference_grid(num_preferences, num_objectives))
    rewards = random.normal(size=(60, num_objectives))

    def model(policy, mean):
        causes = random.choice(["", "", "short", "loop"], 8).tolist()
        rewards = random.normal(mean, 0.5, size=(8, num_objectives))
        texts = [f"word {i}" for i in range(8)]
        return ModelResponses(policy, rewards, causes, texts, [3] * 8, [False] * 8)

    fronts = {
        f"stage{stage}": [
            model(policy, stage * (np.array(policy.preference) - 0.4))
            for policy in one_adapter_each(f"stage{stage}", preferences)
        ]
        for stage in (1, 2)
    }
    base = model(BASE, np.zeros(num_objectives))
    evaluation = evaluate_fronts(objectives, fronts, base, rewards)
    return SimpleNamespace(
        objectives=objectives,
        preferences=preferences,
        rewards=rewards,
        selection=select(rewards, preferences, 5),
        evaluation=evaluation,
    )


@pytest.fixture(scope="session")
def run():
    return made_up_run(["brief", "positivity"], 3)


@pytest.fixture(scope="session")
def run_of_three_objectives():
    return made_up_run(["helpful", "harmless", "humour"], 6)
