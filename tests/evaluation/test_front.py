from __future__ import annotations

import json

import numpy as np
import pytest

from paretohqd_jax.data.words import DEFINITION
from paretohqd_jax.evaluation.frames import Frame, min_max_frame, z_score_frame
from paretohqd_jax.evaluation.front import evaluate_fronts
from paretohqd_jax.evaluation.responses import ModelResponses
from paretohqd_jax.evaluation.summaries import (
    dominated_share,
    standard_errors,
    truncation_warnings,
)
from paretohqd_jax.pareto import measured_volume
from paretohqd_jax.policies import BASE, Policy, one_adapter_each


def unit_frame(reference):
    reference = np.array(reference, dtype=float)
    return Frame("unit", "test", np.zeros_like(reference), np.ones_like(reference), reference)


POINTS = np.array([(0.1, 0.9), (0.4, 0.75), (0.6, 0.5), (0.8, 0.2), (0.5, 0.4), (0.4, 0.75)])


@pytest.mark.parametrize(("reference", "expected"), [((0, 0), 0.455), ((0.2, 0.1), 0.23)])
def test_hypervolume_of_the_specification(reference, expected):
    assert unit_frame(reference).hypervolume(POINTS) == pytest.approx(expected, abs=1e-6)


def test_hypervolume_of_the_specification_in_three_objectives():
    points = np.array([(1, 2, 3), (3, 1, 2), (2, 3, 1), (1.5, 1.5, 1.5)])
    assert unit_frame((0, 0, 0)).hypervolume(points) == pytest.approx(13.125, abs=1e-5)


def test_hypervolume_of_the_specification_after_min_max():
    raw = np.array([(-1.9, 1.2), (-0.8, 0.9), (0.4, 0.1), (1.1, -1.0)])
    frame = min_max_frame(np.array([(-3.0, -2.0), (2.0, 2.0)]), "test")
    assert frame.hypervolume(raw) == pytest.approx(0.4965, abs=1e-6)


def test_points_below_the_reference_add_nothing():
    frame = unit_frame((0, 0))
    below = np.array([(5.0, -0.1), (-2.0, 7.0), (-1.0, -1.0)])
    assert frame.hypervolume(below) == 0
    assert frame.hypervolume(np.concatenate([POINTS, below])) == frame.hypervolume(POINTS)


def test_hypervolumes_of_many_draws_are_those_of_each():
    draws = np.random.default_rng(0).uniform(-0.5, 1.5, size=(3, 2, 6, 2))
    frame = unit_frame((0, 0.1))
    expected = [np.mean([frame.hypervolume(run) for run in draw]) for draw in draws]
    np.testing.assert_allclose(frame.mean_hypervolumes(draws), expected, rtol=1e-6)


def test_z_score_frame_uses_mean_and_standard_deviation():
    rewards = np.array([(0.0, 10.0), (2.0, 30.0)])
    frame = z_score_frame(rewards, "two rows")
    # (1 + 1)(20 + 10) are one standard deviation above the mean, hence four above the reference.
    assert frame.hypervolume(np.array([(2.0, 30.0)])) == pytest.approx(16)
    assert frame.to_dict() == {
        "name": "z-score",
        "source": "two rows",
        "formula": "(reward - offset) / scale",
        "offset": [1.0, 20.0],
        "scale": [1.0, 10.0],
        "reference": [-3.0, -3.0],
        "reference_in_rewards": [-2.0, -10.0],
    }


def test_an_objective_without_spread_is_only_shifted():
    assert z_score_frame(np.array([(1.0, 5.0), (3.0, 5.0)]), "").scale.tolist() == [1.0, 1.0]
    assert min_max_frame(np.array([(1.0, 5.0), (3.0, 5.0)]), "").scale.tolist() == [2.0, 1.0]


def test_dominated_share():
    assert dominated_share(POINTS) == pytest.approx(1 / 6)  # equal points do not dominate
    assert dominated_share(np.array([(0.0, 0.0), (1.0, 1.0)])) == 0.5


def test_standard_errors():
    rewards = np.array([(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)])
    np.testing.assert_allclose(standard_errors(rewards), [1 / np.sqrt(3), 0])
    np.testing.assert_array_equal(standard_errors(rewards[:1]), [0, 0])


@pytest.fixture(scope="module")
def evaluation():
    """Three models on a clean front in two stages, the base model below it."""
    preferences = np.array([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
    noise = np.array([(-0.1, 0.3), (0.1, -0.3)])  # two prompts, mean 0

    def model(policy, point, causes=("", "")):
        rewards = (noise + point).astype(np.float32)
        cut = [point[0] > 2, False]
        return ModelResponses(policy, rewards, causes, ["a b a b", "c"], [5, 2], cut)

    points = {"stage1": [(0, 2), (0.5, 1), (1, 1.5)], "stage2": [(0, 4), (2, 3), (3, 0)]}
    causes = {"stage1": [("", "")] * 3, "stage2": [("short", ""), ("", ""), ("loop", "loop")]}
    fronts = {
        stage: list(map(model, one_adapter_each(stage, preferences), points[stage], causes[stage]))
        for stage in points
    }
    training_rewards = np.array([(0.0, 0.0), (2.0, 2.0), (0.0, 2.0), (2.0, 0.0)])  # mean 1, std 1
    base = model(BASE, (0, 1), ("loop", ""))
    return evaluate_fronts(["short", "kind"], fronts, base, training_rewards)


def test_evaluation_of_every_model(evaluation):
    stage1, stage2 = evaluation["fronts"]["stage1"], evaluation["fronts"]["stage2"]
    means = [model["mean_rewards"] for model in stage2["models"]]
    np.testing.assert_allclose(means, [(0, 4), (2, 3), (3, 0)], atol=1e-6)
    np.testing.assert_allclose(stage1["models"][1]["standard_errors"], [0.1, 0.3], rtol=1e-6)
    np.testing.assert_allclose(evaluation["base"]["mean_rewards"], [0, 1], atol=1e-6)
    assert evaluation["objectives"] == ["short", "kind"]
    assert [model["label"] for model in stage2["models"]] == [
        "w0.00_1.00",
        "w0.50_0.50",
        "w1.00_0.00",
    ]
    preferences = [model["preference"] for model in stage2["models"]]
    assert preferences == [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    assert evaluation["num_prompts"] == 2


def test_evaluation_of_every_front(evaluation):
    stage1, stage2 = evaluation["fronts"]["stage1"], evaluation["fronts"]["stage2"]
    assert stage1["dominated_share"] == pytest.approx(1 / 3)
    assert stage2["dominated_share"] == 0
    np.testing.assert_allclose(stage1["steerability"], [1.0, 0.5])
    np.testing.assert_allclose(stage2["steerability"], [1.0, 1.0])
    # z-score frame: reference 3 below mean 1 is (-2, -2).
    # Stage 2, widths above the reference: (2, 6), (4, 5), (5, 2) -> 2*6 + 2*5 + 1*2.
    assert stage2["hypervolume"]["z-score"] == pytest.approx(24, rel=1e-5)
    assert evaluation["base"]["hypervolume"]["z-score"] == pytest.approx(2 * 3, rel=1e-5)
    # Min-max frame of all seven means: low (0, 0), high (3, 4).
    assert stage2["hypervolume"]["min-max"] == pytest.approx((2 / 3) * (3 / 4), rel=1e-5)
    assert evaluation["base"]["hypervolume"]["min-max"] == pytest.approx(0, abs=1e-6)


def test_measures_of_single_answers_and_of_evenness(evaluation):
    """By hand, in the box of the training rows, (0, 0) to (2, 2)."""
    stage2 = evaluation["fronts"]["stage2"]
    assert (evaluation["box"]["low"], evaluation["box"]["high"]) == ([0.0, 0.0], [2.0, 2.0])
    # Of w = (1/2, 1/2) the answers are (1.9, 3.3) and (2.1, 2.7): lacks of (.05, -.65) and
    # (-.05, -.35), and a hundredth of their sum; both gaps are 1/2.
    expected = -np.mean([0.05 + 0.01 * (0.05 - 0.65), -0.05 + 0.01 * (-0.05 - 0.35)])
    assert stage2["models"][1]["achievement"] == pytest.approx(expected, rel=1e-5)
    each = [model["achievement"] for model in stage2["models"]]
    assert stage2["achievement"] == pytest.approx(np.mean(each))
    low, high = stage2["achievement_interval"]
    assert low < stage2["achievement"] < high
    # z-scores of the means are (-1, 3), (1, 2), (2, -1).
    assert stage2["inner_product"] == pytest.approx((3 + 1.5 + 2) / 3, rel=1e-6)
    assert stage2["kendall"] == pytest.approx([1.0, 1.0])
    # Answers to the first prompt, above the reference (-2, -2): (1.9, 6.3), (3.9, 5.3), (4.9, 2.3).
    first = 1.9 * 6.3 + 2.0 * 5.3 + 1.0 * 2.3
    second = 2.1 * 5.7 + 2.0 * 4.7 + 1.0 * 1.7  # of (2.1, 5.7), (4.1, 4.7), (5.1, 1.7)
    assert stage2["prompt_hypervolume"] == pytest.approx((first + second) / 2, rel=1e-5)
    # Stage 2 is the union front: (0, 4), (2, 3), (3, 0) in units of 3 and 4.
    assert stage2["generational_distance"] == 0
    gaps = np.array([2 / 3 + 1 / 4, 2 / 3 + 1 / 4, 1 / 3 + 3 / 4])
    assert stage2["spacing"] == pytest.approx(gaps.std(ddof=1), rel=1e-5)
    squares = (2 / 3) ** 2 + (1 / 3) ** 2 + (3 / 4) ** 2 + (1 / 4) ** 2
    assert stage2["sparsity"] == pytest.approx(squares / 2, rel=1e-5)


def test_truncated_answers_are_counted_and_warned_of(evaluation):
    stage1, stage2 = evaluation["fronts"].values()
    assert (stage1["truncated"], stage2["truncated"]) == (0, pytest.approx(1 / 6))
    [warning] = truncation_warnings(evaluation["base"], evaluation["fronts"])
    assert warning.startswith("stage2: the token limit cut 17% of the answers, of the base model's")
    assert "0%" in warning and "config.evaluate.max_new_tokens" in warning


def test_what_is_measured_of_a_model_besides_its_rewards(evaluation):
    balanced, last = evaluation["fronts"]["stage2"]["models"][1:]
    assert balanced["num_tokens"] == 3.5
    assert balanced["distinct_1"] == 3 / 5 and balanced["distinct_2"] == 2 / 3
    assert balanced["win_rate"] == [1.0, 1.0]
    assert last["win_rate"] == [1.0, 0.0]  # all shorter, none kinder
    assert evaluation["base"]["win_rate"] == [0.5, 0.5]  # ties count half
    assert evaluation["bootstrap"] == {"confidence": 0.95, "num_resamples": 1000}


def test_intervals_of_two_prompts_reach_from_one_to_the_other(evaluation):
    """Of two prompts drawn twice, one in four draws holds the first alone."""
    balanced = evaluation["fronts"]["stage2"]["models"][1]
    np.testing.assert_allclose(balanced["interval"], [(1.9, 2.7), (2.1, 3.3)], rtol=1e-6)
    assert balanced["win_rate_interval"] == [[1.0, 1.0], [1.0, 1.0]]
    stage2 = evaluation["fronts"]["stage2"]
    for name, (low, high) in stage2["hypervolume_interval"].items():
        assert low < stage2["hypervolume"][name] < high


def test_distance_to_the_union_front(evaluation):
    """Stage 2 holds the best points but one, (1, 1.5) is dominated: it is the union front."""
    assert evaluation["fronts"]["stage2"]["igd_plus"] == 0
    # Means (0, 2), (0.5, 1), (1, 1.5) fall short of (0, 4), (2, 3), (3, 0) by (0, 2), (1, 1.5)
    # and (2, 0), in units of the min-max frame, 3 and 4.
    expected = np.mean([2 / 4, np.hypot(1 / 3, 1.5 / 4), 2 / 3])
    assert evaluation["fronts"]["stage1"]["igd_plus"] == pytest.approx(expected, rel=1e-6)


def test_every_hypervolume_has_its_frame_beside_it(evaluation):
    z_score, min_max = evaluation["frames"]
    assert (z_score["name"], min_max["name"]) == ("z-score", "min-max")
    assert "deviation of 4 training rows, scored by the reward models" in z_score["source"]
    assert z_score["reference_in_rewards"] == [-2.0, -2.0]
    assert "7 models compared here (stage1, stage2, base)" in min_max["source"]
    np.testing.assert_allclose(min_max["offset"], [0, 0], atol=1e-6)
    np.testing.assert_allclose(min_max["scale"], [3, 4], rtol=1e-6)
    assert min_max["reference"] == [0.0, 0.0]


def test_hypervolumes_of_few_points_are_exact(evaluation):
    for front in evaluation["fronts"].values():
        assert front["hypervolume_error"] == {"z-score": 0, "min-max": 0}


def test_draws_of_large_fronts_are_estimated(monkeypatch):
    frame = unit_frame((0.0,) * 4)
    draws = np.random.default_rng(0).random((3, 2, 9, 4))
    exact = frame.mean_hypervolumes(draws)
    monkeypatch.setattr(measured_volume, "QUICK", 1)
    estimates = frame.mean_hypervolumes(draws)
    assert (estimates != exact).any()
    np.testing.assert_allclose(estimates, exact, rtol=0.02)


def test_what_counts_as_a_word_is_stored(evaluation):
    assert evaluation["words"] == {"version": "words_v1", "definition": DEFINITION}


def test_collapse_by_cause(evaluation):
    stage2 = evaluation["fronts"]["stage2"]
    assert evaluation["collapse_detector"] == "collapse_v1"
    assert evaluation["base"]["collapse"] == {"short": 0.0, "loop": 0.5, "total": 0.5}
    assert stage2["models"][0]["collapse"] == {"short": 0.5, "loop": 0.0, "total": 0.5}
    assert stage2["collapse"] == pytest.approx({"short": 1 / 6, "loop": 1 / 3, "total": 1 / 2})


def test_evaluation_is_json_without_nan(evaluation):
    assert json.loads(json.dumps(evaluation, allow_nan=False)) == evaluation


def test_policies_without_preferences_are_measured_but_not_steered():
    rewards = np.array([(0.0, 1.0), (1.0, 0.0)])

    def model(policy, gain):
        return ModelResponses(policy, rewards + gain, ["", ""], ["a", "b"], [1, 1], [False] * 2)

    fronts = {
        "thresholds": [model(Policy("b=0.5"), 1.0), model(Policy("b=0.9"), 2.0)],
        "one": [model(Policy("w0.50_0.50", (0.5, 0.5)), 1.0)],
    }
    result = evaluate_fronts(["short", "kind"], fronts, model(BASE, 0.0), rewards)
    for front in result["fronts"].values():
        for name in ("steerability", "kendall", "inner_product", "achievement"):
            assert front[name] is None
        assert front["hypervolume"]["z-score"] > 0
    assert [m["label"] for m in result["fronts"]["thresholds"]["models"]] == ["b=0.5", "b=0.9"]
    assert [m["preference"] for m in result["fronts"]["thresholds"]["models"]] == [None, None]
