"""Measures against a known front, and what is refused as one."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.bootstrap import resample
from paretohqd_jax.evaluation.frames import Box
from paretohqd_jax.evaluation.front import evaluate_fronts
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.evaluation.truth import find_truth, truth_summary
from paretohqd_jax.policies import BASE, Policy

FLAT = find_truth("paretohqd_jax.studies.controlled:PowerFront(2,1.0)", 2)
BOX = Box(np.zeros(2), np.ones(2), "test")


def answers(policy, *rewards):
    number = len(rewards)
    texts = ([""] * number, ["a"] * number, [1] * number, [False] * number)
    return ModelResponses(policy, np.array(rewards, float), *texts)


def test_answers_on_the_front_reach_what_there_is_to_reach():
    models = [
        answers(Policy("end", (0.75, 0.25)), [0.75, 0.25], [0.75, 0.25]),
        answers(Policy("middle", (0.5, 0.5)), [0.5, 0.5], [0.5, 0.5]),
    ]
    summary = truth_summary(FLAT, [models], BOX, resample(2))
    assert summary["distance"] == pytest.approx(0)
    assert summary["achievement_ratio"] == pytest.approx(1, abs=0.01)
    union = 0.75 * 0.25 + 0.5 * 0.25  # of two boxes, in a triangle of 1/2
    assert summary["hypervolume_ratio"] == pytest.approx(union / 0.5)
    assert summary["prompt_hypervolume_ratio"] == pytest.approx(union / 0.5, rel=1e-6)
    assert summary["distance_interval"] == pytest.approx([0, 0])


def test_a_coin_toss_has_means_on_the_front_and_no_answer_as_asked():
    tossed = answers(Policy("middle", (0.5, 0.5)), [1, 0], [0, 1])
    balanced = answers(Policy("middle", (0.5, 0.5)), [0.5, 0.5], [0.5, 0.5])
    hollow = find_truth("paretohqd_jax.studies.controlled:PowerFront(2,2.0)", 2)
    for_toss, for_balance = (
        truth_summary(hollow, [[model]], BOX, resample(2)) for model in (tossed, balanced)
    )
    assert for_toss["hypervolume_ratio"] == for_balance["hypervolume_ratio"] == 0.5
    assert for_toss["prompt_hypervolume_ratio"] == 0
    assert for_toss["achievement_ratio"] < for_balance["achievement_ratio"]


def test_there_is_no_share_of_achievements_beyond_the_ideal_point():
    """Of training rows that all are far from the front; the shares would be below 0."""
    model = answers(Policy("middle", (0.5, 0.5)), [0.3, 0.3], [0.3, 0.3])
    near, far = (
        truth_summary(FLAT, [[model]], Box(np.zeros(2), np.full(2, high), "test"), resample(2))
        for high in (0.4, 0.6)
    )
    assert near["achievement_ratio"] is near["achievement_ratio_interval"] is None
    assert 0 < far["achievement_ratio"] < 1


def test_points_tell_of_the_truth():
    base = answers(BASE, [0.2, 0.2], [0.1, 0.3])
    front = [answers(Policy("end", (0.9, 0.1)), [0.8, 0.1], [0.8, 0.1])]
    rewards = np.random.default_rng(0).uniform(size=(9, 2))
    points = evaluate_fronts(["b", "d"], {"last": front}, base, rewards, FLAT)
    assert points["truth"]["volume"] == pytest.approx(0.5)
    assert points["truth"]["curve"][0] == [0, 1] and len(points["truth"]["curve"]) == 101
    assert points["base"]["truth"]["distance"] == pytest.approx(0.6)
    assert points["base"]["truth"]["achievement_ratio"] is None
    assert points["fronts"]["last"]["truth"]["distance"] == pytest.approx(0.1)
    assert "truth" not in evaluate_fronts(["b", "d"], {"last": front}, base, rewards)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paretohqd_jax.studies.controlled:PowerFront(3,1.0)", r"reference has shape \(3,\)"),
        ("paretohqd_jax.studies.controlled:PowerFront(1,1.0)", "1 objectives: the controlled"),
        ("paretohqd_jax.studies.controlled:PowerFront(2,0)", "front 0: use one of"),
        ("paretohqd_jax.studies.controlled:PowerFront(2,x)", "are no arguments"),
        ("paretohqd_jax.studies.controlled:PowerFront(2,1.0", "lacks the closing bracket"),
        ("paretohqd_jax.studies.controlled:prompts(4)", "what it returns has no reference, volume"),
    ],
)
def test_what_is_no_truth_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_truth(name, 2)
