"""What the steps make of scored rows and of pairs, before a model is trained on them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.batches import Examples
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.margins import write_implicit_margins, write_rewarded_margins
from paretohqd_jax.steps.pairs import make_pairs
from paretohqd_jax.steps.preferences import pairs_of_adapters

OPTIONS = {
    "objectives": ["kind", "brief"], "margin": 0.0, "per_prompt": 9, "conflict": -1.0, "seed": 0
}  # fmt: skip
ROWS = {
    "prompt": ["p", "p", "p", "q", "q", "t", "t"],
    "response": list("abcdefg"),
    "source_row": range(7),
    "split": ["train"] * 5 + ["test"] * 2,
    "kind": [1.0, 2.0, 3.0, 5.0, 5.1, 1.0, 2.0],
    "brief": [3.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0],
}


def output(path, table):
    write_table(path, table)
    return Output(path, "", {})


def made(tmp_path, changes=None, **options):
    scored = output(tmp_path / "scores.parquet", pa.table(ROWS | (changes or {})))
    make_pairs(tmp_path / "pairs.parquet", tmp_path, scored, **OPTIONS | options)
    return read_table(tmp_path / "pairs.parquet")


def test_rows_become_pairs_of_which_the_training_ones_are_counted(tmp_path):
    pairs = made(tmp_path)
    assert pairs.select(["chosen", "rejected", "kind", "brief", "split"]).to_pylist() == [
        {"chosen": "b", "rejected": "a", "kind": 1, "brief": -1, "split": "train"},
        {"chosen": "c", "rejected": "a", "kind": 1, "brief": -1, "split": "train"},
        {"chosen": "c", "rejected": "b", "kind": 1, "brief": 1, "split": "train"},
        {"chosen": "e", "rejected": "d", "kind": 1, "brief": 0, "split": "train"},
        {"chosen": "g", "rejected": "f", "kind": 1, "brief": -1, "split": "test"},
    ]
    assert json.loads(pairs.schema.metadata[b"pairs"]) == {
        "num_pairs": 4,
        "objectives": {
            "kind": {"pairs": 4, "ties": 0, "conflicts": 2},
            "brief": {"pairs": 3, "ties": 1, "conflicts": 2},
        },
    }


def test_a_margin_is_in_standard_deviations_of_the_training_rows(tmp_path):
    pairs = made(tmp_path, margin=0.1)  # 0.16 of kind: d and e tie
    assert pairs.num_rows == 4 and "e" not in pairs["chosen"].to_pylist()


def test_a_share_of_conflict_is_drawn_from_the_training_pairs(tmp_path):
    pairs = made(tmp_path, conflict=0.5)
    train = [row for row in pairs.to_pylist() if row["split"] == "train"]
    assert sorted(row["kind"] * row["brief"] for row in train) in ([-1, 0], [-1, 1])
    assert pairs["split"].to_pylist().count("test") == 1


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"brief": [1.0, 1, 1, 1, 1, 1, 2]}, {}, "objective 'brief' is 1.0 in every row"),
        ({"brief": [1.0, 1, 1, 2, 2, 1, 2]}, {}, "'brief' decides none of 4 training pairs; give"),
        ({"brief": ROWS["kind"]}, {"conflict": 0.5}, "needs pairs of both kinds; 0 of 4 pairs"),
        ({"response": list("aaaddfg")}, {}, "no prompt to train on has two responses that differ"),
    ],
)
def test_what_gives_no_pairs_is_named(tmp_path, changes, options, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, changes, **options)


def test_margins_are_what_each_objective_pays_for_the_chosen_response(tmp_path):
    pairs = Output(tmp_path / "pairs.parquet", "", {})
    made(tmp_path)
    write_rewarded_margins(
        tmp_path / "margins.npy", tmp_path, Output(tmp_path / "scores.parquet", "", {}), pairs,
        objectives=["kind", "brief"],
    )  # fmt: skip
    # The last pair is held out.
    expected = [[1.0, 2.0, 1.0, 0.1, 1.0], [-2.0, -1.0, 1.0, 0.0, -1.0]]
    np.testing.assert_allclose(np.load(tmp_path / "margins.npy"), expected, rtol=1e-6)
    reference, likelihoods = np.zeros((1, 1, 2)), np.array([[[3.0, 1.0]], [[-1.0, 0.0]]])
    outputs = []
    for name, values in (("reference", reference), ("models", likelihoods)):
        np.save(tmp_path / f"{name}.npy", values.astype(np.float32))
        outputs.append(Output(tmp_path / f"{name}.npy", "", {}))
    write_implicit_margins(tmp_path / "margins.npy", tmp_path, *outputs, beta=0.5)
    np.testing.assert_allclose(np.load(tmp_path / "margins.npy"), [[1.0], [-0.5]])


def test_an_adapter_counts_one_objective_and_what_the_others_pay():
    examples = Examples(*(np.zeros((2, 2, 3)) for _ in range(3)))
    labels = np.array([[1, -1, 0], [0, 1, 1]], np.int8)
    weights = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    margins = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32)
    pairs = pairs_of_adapters(examples, np.zeros((2, 2)), labels, weights, margins, [0, 2])
    np.testing.assert_array_equal(pairs.weights[:, 0], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(pairs.share, [[0.5, 0.5], [0.7, 0.7]])
    np.testing.assert_allclose(pairs.others, [[23.0, 46.0], [2.1, 4.2]], rtol=1e-6)
    plain = pairs_of_adapters(examples, np.zeros((2, 2)), labels, weights)
    np.testing.assert_array_equal(plain.weights[:, 1], weights)
    assert (plain.others == 0).all() and (plain.share == 1).all()
    assert plain.tokens.shape == (2, 2, 2, 3) and plain.tokens.strides[0] == 0  # there once
