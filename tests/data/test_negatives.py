from __future__ import annotations

import pyarrow as pa
import pytest

from paretohqd_jax.data.negatives import parse_negatives, with_negatives
from paretohqd_jax.errors import InputError


def groups_of(size, num_train=20, response="these are {row} good words of {prompt}"):
    rows = [
        {
            "prompt": f"p{prompt}",
            "responses": [response.format(row=row, prompt=prompt) for row in range(size)],
            "scores": [float(row) for row in range(size)],
            "split": "train" if prompt < num_train else "test",
        }
        for prompt in range(num_train + 5)
    ]
    return pa.Table.from_pylist(rows)


def test_a_pair_becomes_the_chosen_response_and_its_copy():
    groups = groups_of(2)
    shares = {"shuffled": 0.25, "other_prompt": 0.1}
    table = with_negatives(groups, shares, margin=0.5, seed=0)
    assert table.slice(0, 25).equals(groups)
    added = table.slice(25).to_pylist()
    assert len(added) == 5 + 2 and {group["split"] for group in added} == {"train"}
    assert len({group["prompt"] for group in added[:5]}) == 5
    for group in added:
        best, copy = group["responses"]
        assert best == f"these are 1 good words of {group['prompt'][1:]}"
        assert group["scores"] == [1.0, 0.0]
        if group in added[:5]:
            assert copy != best and sorted(copy.split()) == sorted(best.split())
        else:
            prompt = int(copy.split()[-1])
            assert f"p{prompt}" != group["prompt"] and prompt < 20, "of a training group"


@pytest.mark.parametrize("size", [3, 4, 8])
def test_the_better_half_of_a_group_and_copies_below_it(size):
    table = with_negatives(groups_of(size), {"cut": 1.0}, margin=2.0, seed=0)
    added = table.slice(25).to_pylist()
    assert len(added) == 20
    for group in added:
        assert len(group["responses"]) == len(group["scores"]) == size
        num_real = size - size // 2
        real, copies = group["scores"][:num_real], group["scores"][num_real:]
        assert real == [size - 1.0 - row for row in range(num_real)]
        assert set(copies) == {min(real) - 4.0}
        for response, copy in zip(group["responses"], group["responses"][num_real:], strict=False):
            assert response.startswith(copy)


def test_groups_whose_copies_are_no_change_are_left_out(caplog):
    table = with_negatives(groups_of(2, response="word{row}{prompt}"), {"shuffled": 0.5}, 0.5, 0)
    assert table.num_rows == 25
    assert "10 groups were due" in caplog.text


@pytest.mark.parametrize(
    "text", ["shuffled=1.5", "shuffled=-0.1", "shuffled=nan", "shuffled", "sorted=0.1",
             "temperature_2=0.1", "shuffled=much"],
)  # fmt: skip
def test_negatives_that_will_not_do(text):
    with pytest.raises(InputError, match=f"config.data.negatives: '{text}' will not do"):
        parse_negatives(["cut=0.1", text])


def test_negatives_by_kind():
    assert parse_negatives(["shuffled=0.25", "cut=1"]) == {"shuffled": 0.25, "cut": 1.0}
    with pytest.raises(InputError, match="each kind once"):
        parse_negatives(["cut=0.1", "cut=0.2"])
