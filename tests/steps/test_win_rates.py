"""How often responses are preferred, from rewards and from labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.win_rates import write_labelled_win_rates, write_win_rates

ROWS = {
    "prompt": ["p", "q", "p", "p", "q", "alone", "t"],
    "response": list("abcdefg"),
    "split": ["train"] * 6 + ["test"],
    "kind": [1.0, 5.0, 2.0, 3.0, 5.0, 9.0, 9.0],
    "brief": [3.0, 1.0, 1.0, 2.0, 0.0, 9.0, 9.0],
}


def output(path, table):
    write_table(path, table)
    return Output(path, "", {})


def made(tmp_path, temperature):
    scored = output(tmp_path / "scores.parquet", pa.table(ROWS))
    path = tmp_path / "win_rates.parquet"
    write_win_rates(path, tmp_path, scored, objectives=["kind", "brief"], temperature=temperature)
    return read_table(path)


def test_the_larger_reward_wins_against_every_other_response_to_the_prompt(tmp_path):
    table = made(tmp_path, 0.0)
    assert table["response"].to_pylist() == list("abcde")  # none alone, none held out
    np.testing.assert_array_equal(table["kind"], [0, 0.5, 0.5, 1, 0.5])  # b and e tie
    np.testing.assert_array_equal(table["brief"], [1, 1, 0, 0.5, 0])


def test_smooth_preferences_are_sigmoids_in_standard_deviations(tmp_path):
    table = made(tmp_path, 0.5)
    scale = 0.5 * np.std(ROWS["kind"][:6])
    one, two = 1 / (1 + np.exp(-np.array([1.0, 2.0]) / scale))
    expected = [1 - (one + two) / 2, 0.5, 0.5, (one + two) / 2, 0.5]
    np.testing.assert_allclose(table["kind"], expected, rtol=1e-6)
    np.testing.assert_allclose(np.mean(table["brief"]), 0.5, rtol=1e-6)


def test_without_two_responses_to_a_prompt_nothing_is_preferred(tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "prompt", list("abcdefg"))
    with pytest.raises(InputError, match="no prompt to train on has two responses"):
        made(tmp_path, 1.0)


def test_a_response_has_the_mean_of_the_labels_of_its_pairs(tmp_path):
    table = pa.table(
        {
            "prompt": ["p", "p", "q", "p"],
            "chosen": ["a", "c", "a", "a"],
            "rejected": ["b", "a", "b", "d"],
            "kind": [1, 1, -1, 0],
            "brief": [-1, 1, 0, 1],
            "split": ["train"] * 3 + ["test"],
        }
    )
    pairs = output(tmp_path / "pairs.parquet", table)
    path = tmp_path / "win_rates.parquet"
    write_labelled_win_rates(path, tmp_path, pairs, objectives=["kind", "brief"])
    assert read_table(path).to_pylist() == [
        {"prompt": "p", "response": "a", "kind": 0.5, "brief": 0.0},
        {"prompt": "p", "response": "b", "kind": 0.0, "brief": 1.0},
        {"prompt": "p", "response": "c", "kind": 1.0, "brief": 1.0},
        {"prompt": "q", "response": "a", "kind": 0.0, "brief": 0.5},
        {"prompt": "q", "response": "b", "kind": 1.0, "brief": 0.5},
    ]


def test_an_objective_that_tells_prompts_apart_but_no_responses_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "kind", [1.0, 5.0, 1.0, 1.0, 5.0, 9.0, 9.0])
    with pytest.raises(InputError, match="scores.parquet: objective 'kind' prefers no response"):
        made(tmp_path, 1.0)
