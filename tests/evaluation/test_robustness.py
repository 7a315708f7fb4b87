from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.evaluation.robustness import measure_corruption


@pytest.mark.parametrize(
    ("num_right", "num_pairs", "verdict"),
    [(200, 200, "sound"), (190, 200, "sound"), (187, 200, "unclear"), (150, 200, "fooled"),
     (0, 19, "too few pairs"), (0, 20, "fooled"), (0, 0, "too few pairs")],
)  # fmt: skip
def test_the_verdict_on_shuffled_words(num_right, num_pairs, verdict):
    differences = np.where(np.arange(num_pairs) < num_right, 1.0, -1.0)
    measured = measure_corruption("shuffled", differences, 3)
    assert measured["verdict"] == verdict and measured["least"] == 0.95
    assert (measured["num_pairs"], measured["num_skipped"]) == (num_pairs, 3)
    if not num_pairs:
        assert measured["preferred"] is measured["interval"] is None
    else:
        low, high = measured["interval"]
        assert low <= measured["preferred"] == num_right / num_pairs <= high


def test_ties_count_half_and_other_kinds_may_fail_more_often():
    assert measure_corruption("cut", np.zeros(50), 0)["preferred"] == 0.5
    assert measure_corruption("cut", np.repeat([1, -1], [92, 8]), 0)["verdict"] == "sound"
