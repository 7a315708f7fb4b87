from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.pairs import in_conflict, pairs_of, rows_of, sample_conflict
from paretohqd_jax.errors import InputError

ROWS = pa.table(
    {
        "prompt": ["p", "q", "p", "q", "p"],
        "response": ["a", "b", "c", "d", "e"],
        "helpful": [1.0, 5.0, 2.0, 5.0, None],
        "brief": [3, 1, 1, 2, 3],
    }
)


def test_pairs_of_scored_rows_stay_within_a_prompt_and_are_led_by_the_first_objective():
    pairs = pairs_of(ROWS, "rows").to_pylist()
    assert pairs == [
        {"prompt": "p", "chosen": "c", "rejected": "a", "helpful": 1, "brief": -1},
        # One score is missing, so the next objective leads; a and e tie on all that is known.
        {"prompt": "p", "chosen": "e", "rejected": "c", "helpful": 0, "brief": 1},
        {"prompt": "q", "chosen": "d", "rejected": "b", "helpful": 0, "brief": 1},
    ]


def test_rows_without_scores_make_no_pairs():
    with pytest.raises(InputError, match="rows: has no column of numbers"):
        pairs_of(ROWS.select(["prompt", "response"]), "rows")


def test_rows_that_all_tie_make_no_pairs():
    with pytest.raises(InputError, match="no two responses to one prompt differ in brief"):
        pairs_of(ROWS.select(["prompt", "response", "brief"]).take([0, 4]), "rows")


def test_pairs_and_rows_are_left_as_they_are():
    pairs = pairs_of(ROWS, "rows")
    assert pairs_of(pairs, "rows") is pairs
    assert rows_of(ROWS) is ROWS
    rows = rows_of(pairs.append_column("source_row", [[4, 5, 6]]))
    assert rows["response"].to_pylist() == ["c", "a", "e", "c", "d", "b"]
    assert rows["prompt"].to_pylist() == ["p", "p", "p", "p", "q", "q"]
    assert rows["source_row"].to_pylist() == [4, 4, 5, 5, 6, 6]


def labelled(num_conflict, num_agreeing):
    harmless = [-1] * num_conflict + [1] * (num_agreeing - 1) + [0]
    num_pairs = len(harmless)
    return pa.table({"id": [str(i) for i in range(num_pairs)], "helpful": [1] * num_pairs,
                     "harmless": harmless})  # fmt: skip


@pytest.mark.parametrize(
    ("fraction", "num_conflict"), [(0, 0), (0.29, 3), (0.3, 3), (0.5, 5), (0.9, 9), (1, 10)]
)
def test_every_fraction_has_as_many_pairs_and_its_share_of_conflict(fraction, num_conflict):
    pairs = labelled(10, 30)
    sample = sample_conflict(pairs, fraction, seed=0)
    assert sample.num_rows == 10 == len(set(sample["id"].to_pylist()))
    assert in_conflict(sample).sum() == num_conflict
    assert sample.equals(sample_conflict(pairs, fraction, seed=0))
    assert not sample.equals(sample_conflict(pairs, fraction, seed=1))


def test_conflict_pairs_do_not_stand_in_front():
    conflict = in_conflict(sample_conflict(labelled(100, 100), 0.5, seed=0))
    assert 15 < np.flatnonzero(conflict[:50]).size < 35


@pytest.mark.parametrize(("pairs", "fraction"), [(labelled(3, 3), 1.5), (labelled(0, 3), 0.5)])
def test_an_impossible_fraction_is_refused(pairs, fraction):
    with pytest.raises(InputError, match=f"conflict fraction {fraction}"):
        sample_conflict(pairs, fraction, 0)
