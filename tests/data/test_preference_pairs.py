from __future__ import annotations

import logging
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.pairs import (
    compare_rows,
    count_labels,
    in_conflict,
    label_matrix,
    limit_per_prompt,
    pairs_of,
    rows_of,
    sample_conflict,
    without_equal,
)
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


@pytest.mark.parametrize("base", [2**53, 2**63, Decimal(2**80)])
def test_large_integers_are_compared_as_they_are(base):
    kind = pa.uint64() if base == 2**63 else None
    scores = pa.array([base, base + 1, None, base], kind)
    rows = pa.table({"prompt": ["p"] * 4, "response": list("abcd"), "helpful": scores})
    pairs = pairs_of(rows, "rows").select(["chosen", "rejected"]).to_pylist()
    assert pairs == [{"chosen": "b", "rejected": "a"}, {"chosen": "b", "rejected": "d"}]


def test_two_rows_of_one_text_are_no_pair():
    rows = pa.table({"prompt": ["p"] * 3, "response": ["a", "b", "a"], "helpful": [1.0, 2.0, 3.0]})
    pairs = pairs_of(rows, "rows").to_pylist()
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("b", "a"), ("a", "b")]


def test_pairs_of_equal_texts_are_left_out_and_counted(caplog):
    pairs = pa.table({"prompt": ["p", "p"], "chosen": ["a", "b"], "rejected": ["a", "a"]})
    with caplog.at_level(logging.INFO):
        assert without_equal(pairs, "pairs").to_pylist() == pairs.to_pylist()[1:]
    assert "pairs: 1 pairs of two equal responses left out" in caplog.text
    with pytest.raises(InputError, match="pairs: chosen and rejected are the same text in every"):
        without_equal(pairs.slice(0, 1), "pairs")


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


def test_rewards_that_differ_by_the_margin_tie():
    pairs = compare_rows(ROWS, ["helpful", "brief"], [1.0, 0.0], "rows")
    assert pairs.select(["chosen", "rejected", "helpful", "brief"]).to_pylist() == [
        {"chosen": "a", "rejected": "c", "helpful": 0, "brief": 1},
        {"chosen": "e", "rejected": "c", "helpful": 0, "brief": 1},
        {"chosen": "d", "rejected": "b", "helpful": 0, "brief": 1},
    ]
    chosen = ROWS["response"].take(pairs["chosen_row"]).to_pylist()
    assert chosen == pairs["chosen"].to_pylist()


def test_labels_are_read_and_what_is_none_is_named():
    pairs = pa.table({"kind": [1, None, -1], "brief": [0.0, 1.0, 2.0], "source_row": [4, 5, 9]})
    assert label_matrix(pairs, ["kind"], "pairs").tolist() == [[1], [0], [-1]]
    with pytest.raises(InputError, match="pairs: row 9: the label 'brief' is 2, not -1, 0 or 1"):
        label_matrix(pairs, ["kind", "brief"], "pairs")
    with pytest.raises(InputError, match="pairs: no column 'warm'"):
        label_matrix(pairs, ["warm"], "pairs")


@pytest.mark.parametrize(("label", "kind"), [(True, "bool"), ("1", "string"), ([1], "list")])
def test_labels_that_are_no_numbers_are_named(label, kind):
    pairs = pa.table({"kind": [None, label]})
    with pytest.raises(InputError, match=f"pairs: the labels 'kind' are {kind}.*, no numbers"):
        label_matrix(pairs, ["kind"], "pairs")


def test_a_column_without_any_label_decides_nothing():
    assert label_matrix(pa.table({"kind": [None, None]}), ["kind"], "pairs").tolist() == [[0], [0]]


def test_pairs_ties_and_conflicts_are_counted_by_objective():
    labels = np.array([[1, -1, 0], [1, 1, 0], [0, 1, -1]])
    assert count_labels(labels, ["a", "b", "c"]) == {
        "a": {"pairs": 2, "ties": 1, "conflicts": 1},
        "b": {"pairs": 3, "ties": 0, "conflicts": 2},
        "c": {"pairs": 1, "ties": 2, "conflicts": 1},
    }


def test_a_prompt_gives_so_many_pairs_at_most():
    prompts = list("aabaacbbac")
    pairs = pa.table({"prompt": prompts, "number": range(10)})
    limited = limit_per_prompt(pairs, 2, seed=0)
    numbers = limited["number"].to_pylist()
    assert sorted(limited["prompt"].to_pylist()) == list("aabbcc")
    assert numbers == sorted(numbers)
    assert limit_per_prompt(pairs, 2, seed=1)["number"].to_pylist() != numbers
    assert limit_per_prompt(pairs, 9, seed=0).equals(pairs)
