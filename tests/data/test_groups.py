from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.conversations import as_conversation, parse_dialogue
from paretohqd_jax.data.groups import Split, group_responses
from paretohqd_jax.errors import InputError

OPTIONS = {
    "score": "", "log_odds": False, "group_size": 3, "groups_per_prompt": 2, "test_share": 0.3,
    "validation_share": 0.0, "train_part": (0.0, 1.0), "test_size": 5, "seed": 0,
    "drop_shared": False, "source": "data",
}  # fmt: skip


def rows(num_prompts=40, num_responses=8):
    return pa.Table.from_pylist(
        [
            {"prompt": f"p{i}", "response": f"r{i}.{j}", "win": (j + 1) / 10}
            for j in range(num_responses) for i in range(num_prompts)
        ]
    )  # fmt: skip


def test_scored_rows_become_groups_of_one_prompt_each():
    table = group_responses(rows(), **OPTIONS | {"score": "win", "log_odds": True})
    sizes = {"train": set(), "test": set()}
    for row in table.to_pylist():
        sizes[row["split"]].add(len(row["responses"]))
        assert row["split"] == Split(0.0, 0.3).part(row["prompt"])
        for response, score in zip(row["responses"], row["scores"], strict=True):
            assert response.startswith("r" + row["prompt"][1:] + ".")
            win = (int(response.split(".")[1]) + 1) / 10
            assert score == pytest.approx(np.log(win / (1 - win)))
    assert sizes == {"train": {3}, "test": {5}}
    train = [r for row in table.to_pylist() if row["split"] == "train" for r in row["responses"]]
    assert len(train) == len(set(train)), "no response is in two groups"
    count = {p: table["prompt"].to_pylist().count(p) for p in set(table["prompt"].to_pylist())}
    assert set(count.values()) == {1, 2}


def test_the_split_hangs_on_the_prompt_alone():
    some = group_responses(rows(40), **OPTIONS | {"score": "win"})
    more = group_responses(rows(60, 6), **OPTIONS | {"score": "win", "seed": 5})
    split = dict(zip(more["prompt"].to_pylist(), more["split"].to_pylist(), strict=True))
    assert all(split[row["prompt"]] == row["split"] for row in some.to_pylist())
    parts = [Split(0.2, 0.3, (0.0, 0.25)).part(f"prompt {i}") for i in range(4000)]
    shares = {part: parts.count(part) / 4000 for part in set(parts)}
    due = {"validation": 0.2, "test": 0.3, "train": 0.125, "unused": 0.375}
    assert shares == pytest.approx(due, abs=0.03)
    half = Split(0.0, 0.5)
    assert half.part("a prompt\n") == half.part(" a prompt")


def test_halves_of_the_training_prompts_are_disjoint_and_share_what_is_held_out():
    first, second = (Split(0.2, 0.3, part) for part in ((0.0, 0.5), (0.5, 1.0)))
    whole, old = Split(0.2, 0.3), Split(0.0, 0.2)
    for prompt in (f"prompt {i}" for i in range(500)):
        part = whole.part(prompt)
        halves = {first.part(prompt), second.part(prompt)}
        assert halves == ({"train", "unused"} if part == "train" else {part})
        assert (part == "validation") == (old.part(prompt) == "test")
    options = OPTIONS | {"score": "win", "validation_share": 0.2, "train_part": (0.5, 1.0)}
    prompts = group_responses(rows(), **options)["prompt"].to_pylist()
    assert set(prompts) == {f"p{i}" for i in range(40) if second.part(f"p{i}") != "unused"}


def test_conversations_are_held_out_by_the_text_of_their_dialogue():
    for text in (f"\n\nHuman: q{i}\n\nAssistant: a\n\nHuman: r" for i in range(50)):
        half = Split(0.0, 0.5)
        assert half.part(as_conversation(parse_dialogue(text))) == half.part(text)


def test_rows_without_a_score_are_left_out_and_others_named_by_their_source():
    table = pa.table(
        {"prompt": ["p"] * 5, "response": list("abcde"), "win": [None, 0.1, 0.2, 0.3, 0.4],
         "source_row": [7, 7, 8, 8, 9]}
    )  # fmt: skip
    options = OPTIONS | {"score": "win", "test_share": 1e-9}
    groups = group_responses(table, **options | {"group_size": 4}).to_pylist()
    assert [sorted(group["responses"]) for group in groups] == [list("bcde")]
    odd = table.set_column(2, "win", pa.array([None, 0.1, 0.2, 0.3, float("nan")]))
    with pytest.raises(InputError, match="data: row 9: 'win' is nan"):
        group_responses(odd, **options)
    far = table.set_column(2, "win", pa.array([None, 0.1, 0.2, 3.0, 0.4]))
    with pytest.raises(InputError, match="data: row 8: 'win' is 3.0, no probability"):
        group_responses(far, **options | {"log_odds": True})


def test_responses_that_many_prompts_share_are_left_out_if_told_so():
    constant = pa.table({"prompt": ["p0", "p1", "p2"], "response": ["same"] * 3, "win": [0.9] * 3})
    table = pa.concat_tables([rows(), constant])
    options = OPTIONS | {"score": "win", "test_size": 9, "groups_per_prompt": 3}

    def responses(table, **changed):
        return group_responses(table, **options | changed)["responses"].to_pylist()

    assert any("same" in group for group in responses(table))
    assert responses(table, drop_shared=True) == responses(rows())
    pairs = pa.table({"prompt": list("abc"), "chosen": ["same"] * 3, "rejected": list("xyz")})
    assert len(responses(pairs, score="", drop_shared=True)) == 3, "a refusal may be chosen often"


def test_pairs_are_groups_of_two_in_the_order_of_their_labels():
    table = pa.Table.from_pylist(
        [
            {"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}", "safe": i % 3 - 1}
            for i in range(60)
        ]
    )
    plain = group_responses(table, **OPTIONS)
    assert plain.num_rows == 60 and all(s == [1, 0] for s in plain["scores"].to_pylist())
    labelled = group_responses(table, **OPTIONS | {"score": "safe"}).to_pylist()
    assert len(labelled) == 40, "a label of 0 is no preference"
    for row in labelled:
        assert row["scores"] == ([1, 0] if int(row["prompt"][1:]) % 3 == 2 else [0, 1])


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (rows(40, 2), {"score": "win", "test_share": 1e-9}, "no prompt has responses"),
        (rows(), {"score": "wins"}, "no column 'wins'"),
        (pa.table({"prompt": ["a"], "response": ["b"], "win": [3.0]}),
         {"score": "win", "log_odds": True}, "no probability"),
    ],
)  # fmt: skip
def test_data_that_do_not_do(table, options, message):
    with pytest.raises(InputError, match=message):
        group_responses(table, **OPTIONS | options)
