from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from paretohqd_jax.data.corruptions import PRAISE
from paretohqd_jax.data.negatives import parse_negatives, with_negatives
from paretohqd_jax.errors import InputError

SENTENCES = "These are {row} good words of {prompt}. They say enough."


def groups_of(size, num_train=40, response=SENTENCES):
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


def test_a_pair_gets_a_copy_of_the_chosen_response_that_is_no_better_than_the_other():
    groups = groups_of(2)
    shares = {"shuffled": 0.5, "other_prompt": 0.5}
    table = with_negatives(groups, shares, seed=0)
    assert table.slice(40).equals(groups.slice(40)), "what is held out stays as it is"
    num_shuffled = 0
    for group in table.slice(0, 40).to_pylist():
        prompt = group["prompt"][1:]
        best, worst, copy = group["responses"]
        assert [best, worst] == [SENTENCES.format(row=row, prompt=prompt) for row in (1, 0)]
        assert group["scores"] == [1.0, 0.0, 0.0]
        if copy.endswith("They say enough."):
            other = copy.split()[6][:-1]
            assert copy.startswith("These are 1 good words of") and other != prompt
            assert int(other) < 40, "of a training group"
        else:
            num_shuffled += 1
            assert copy != best and len(copy) == len(best)
    assert 10 <= num_shuffled <= 30


@pytest.mark.parametrize("size", [3, 4, 8])
def test_copies_are_of_different_kinds_and_of_the_better_half(size):
    shares = {"cut": 1.0, "praise": 1.0, "repeated_half": 0.25, "echo": 0.75}
    groups = with_negatives(groups_of(size), shares, seed=0).slice(0, 40).to_pylist()
    assert len(groups) == 40
    echoes = 0
    for group in groups:
        assert len(group["responses"]) == len(group["scores"]) == size + 3
        assert group["scores"] == [size - 1.0 - row for row in range(size)] + [0.0] * 3
        real, copies = group["responses"][:size], group["responses"][size:]
        echoes += group["prompt"] in copies
        better = real[: (size + 1) // 2]
        praises = [copy for copy in copies if copy in PRAISE]
        cut = [copy for copy in copies if any(text.startswith(copy) for text in better)]
        assert len(praises) == len(cut) == 1
    assert 22 <= echoes <= 38


def test_another_kind_steps_in_where_a_copy_would_be_no_change():
    groups = groups_of(2, response="word{row}{prompt}")
    table = with_negatives(groups, {"shuffled": 0.5, "praise": 0.5}, 0)
    assert all(texts[2] in PRAISE for texts in table.slice(0, 40)["responses"].to_pylist())


def test_groups_with_too_few_copies_are_left_out(caplog):
    table = with_negatives(groups_of(2, response="word{row}{prompt}"), {"shuffled": 1.0}, 0)
    assert pc.sum(pc.equal(table["split"], "train")).as_py() == 0
    assert "40 groups left out" in caplog.text


def test_each_kind_comes_as_often_as_its_share():
    shares = {"shuffled": 0.5, "cut": 0.1, "echo": 0.4, "loop": 1.0}
    texts = with_negatives(groups_of(2, 400), shares, 0).slice(0, 400).to_pylist()
    echoes = [group["prompt"] in group["responses"] for group in texts]
    assert np.mean(echoes) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize(
    "text", ["shuffled=1.5", "shuffled=-0.1", "shuffled=nan", "shuffled", "sorted=0.1",
             "temperature_2=0.1", "shuffled=much"],
)  # fmt: skip
def test_negatives_that_will_not_do(text):
    with pytest.raises(InputError, match=f"config.data.negatives: '{text}' will not do"):
        parse_negatives(["cut=0.1", text])


def test_negatives_by_kind():
    assert parse_negatives(["shuffled=0.25", "cut=0.75"]) == {"shuffled": 0.25, "cut": 0.75}
    assert parse_negatives(()) == {}
    with pytest.raises(InputError, match="each kind once"):
        parse_negatives(["cut=0.1", "cut=0.2"])
    with pytest.raises(InputError, match=r"add up to 1.3, .* make it a whole number"):
        parse_negatives(["cut=0.5", "shuffled=0.8"])
