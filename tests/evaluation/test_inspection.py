"""Each warning on rewards made for it, and none on clean ones."""

from __future__ import annotations

import numpy as np
import pytest

from paretohqd_jax.evaluation.inspection import (
    plot_rewards,
    prompt_lines,
    reward_warnings,
    summary_lines,
)

NUM_ROWS = 20_000


@pytest.fixture
def random():
    return np.random.default_rng(0)


def warnings_of(first, second, texts=None):
    return reward_warnings(np.stack([first, second], axis=1), ["first", "second"], texts)


def only_warning(*arguments):
    (warning,) = warnings_of(*arguments)
    return warning


CLEAN = {
    "normal": lambda random, size: random.normal(size=size),
    "uniform": lambda random, size: random.uniform(size=size),
    "exponential": lambda random, size: random.exponential(size=size),
    "laplace": lambda random, size: -random.laplace(size=size),
    "two_heaps": lambda random, size: random.normal(size=size) + 6 * random.integers(0, 2, size),
}


@pytest.mark.parametrize("num_rows", [60, 500, NUM_ROWS, 200_000])
@pytest.mark.parametrize("kind", CLEAN)
def test_clean_rewards_raise_no_warning(random, kind, num_rows):
    values = CLEAN[kind](random, num_rows).astype(np.float32)
    assert warnings_of(values, random.normal(size=num_rows) - 0.5 * values) == []


def test_rounded_rewards(random):
    warning = only_warning(random.normal(size=NUM_ROWS).round(1), random.normal(size=NUM_ROWS))
    assert warning.startswith("first: quantised") and "in 20000 different rows" in warning


def test_rewards_with_one_common_value(random):
    values = np.where(random.uniform(size=NUM_ROWS) < 0.3, 0.0, random.normal(size=NUM_ROWS))
    warning = only_warning(values, random.normal(size=NUM_ROWS))
    assert warning.startswith("first: quantised") and "29 % of the rows have the value 0" in warning


def test_saturated_rewards(random):
    squashed = 1 / (1 + np.exp(-8 * random.normal(size=NUM_ROWS)))
    warning = only_warning(random.normal(size=NUM_ROWS), squashed)
    assert warning.startswith("second: saturated") and "value" in warning
    clipped = np.minimum(random.normal(size=NUM_ROWS), 0.5)
    warning = only_warning(clipped, random.normal(size=NUM_ROWS))
    assert "32 % of the rows are at its highest value" in warning


def test_outliers_that_make_the_range(random):
    values = random.normal(size=NUM_ROWS)
    values[:3] = (-40, -41, -44)
    warning = only_warning(values, random.normal(size=NUM_ROWS))
    assert warning.startswith("first: outlier-driven range") and "low outliers" in warning
    warning = only_warning(random.normal(size=NUM_ROWS), -values)
    assert warning.startswith("second: outlier-driven range") and "high outliers" in warning


def test_constant_rewards(random):
    assert only_warning(np.ones(NUM_ROWS), random.normal(size=NUM_ROWS)).startswith("first: const")


def test_duplicates(random):
    half = NUM_ROWS // 2
    first, second = np.tile(random.normal(size=(2, half)), 2)
    assert only_warning(first, second).startswith("duplicate-heavy: 50 % of the rows")
    texts = [("prompt", str(row % half)) for row in range(NUM_ROWS)]
    assert only_warning(first, second, texts).startswith("duplicate-heavy")
    apart = [("prompt", str(row)) for row in range(NUM_ROWS)]
    assert warnings_of(first, second, apart) == []  # other texts may have the same rewards


def test_objectives_that_order_the_rows_alike_or_the_other_way(random):
    values = random.normal(size=NUM_ROWS)
    noise = 0.1 * random.normal(size=NUM_ROWS)
    assert "near-identical" in only_warning(values, np.arctan(values) + 0.1 * noise)
    assert "near-opposite" in only_warning(values, noise - values)
    assert warnings_of(values, values + random.normal(size=NUM_ROWS)) == []


def test_few_rows_tell_nothing():
    assert warnings_of(np.ones(20), np.ones(20)) == []


def test_the_summary_and_the_picture(tmp_path, random):
    rewards = random.normal(size=(300, 3)) * [1, 2, 3]
    lines = summary_lines(rewards, ["a", "bb", "c"])
    assert lines[2].split()[0] == "bb" and lines[2].split()[-1] == "300"
    assert float(lines[2].split()[-2]) == pytest.approx(rewards[:, 1].std(), rel=1e-3)
    assert float(lines[5].split()[2]) == pytest.approx(np.corrcoef(rewards.T)[0, 1], abs=1e-3)
    plot_rewards(tmp_path / "rewards.png", rewards, ["a", "bb", "c"])
    assert (tmp_path / "rewards.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("values", [[1.0, 1 + 2**-52], [1e100, 1e100], [2**60, 2**60 + 1]])
def test_hardly_any_range_is_drawn(tmp_path, values):
    plot_rewards(tmp_path / "plot.png", np.array([values, [0, 1]]).T, ["a", "b"])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_share_of_variance_between_prompts():
    rewards = np.array([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
    lines = prompt_lines(rewards, ["a", "b"], ["p", "p", "q", "q"])
    assert lines[0] == "variance between prompts: a 100%, b 0%"
    assert prompt_lines(rewards, ["a", "b"], list("pqrs")) == []
