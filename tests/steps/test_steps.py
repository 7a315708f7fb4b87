"""What the steps refuse, on rows made for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.scores_in_rows import statistics_of
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pareto import Selection
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.scoring import score_data, score_reference
from paretohqd_jax.steps.selection import pool_advice, write_selection
from paretohqd_jax.steps.task import prompt_options
from paretohqd_jax.steps.training import examples_of, held_out_rows


@pytest.fixture
def base():
    return BaseModel("random:toy", "float32", "none", "{prompt}:", LoraConfig(rank=1))


def score_rows(tmp_path, base, rows, **changes):
    source, path = tmp_path / "rows.parquet", tmp_path / "scores.parquet"
    write_table(source, pa.Table.from_pylist(rows))
    options = {
        "data": {"source": str(source)}, "num_test_prompts": 1,
        "models": ["short=brief", "positivity"], "backend": "jax", "dtype": "float32",
        "min_tokens": 1, "max_tokens": 100, "batch_size": 16,
        "max_new_tokens": 20,
    } | changes  # fmt: skip
    score_data(path, tmp_path / "scratch", base=base, store=tmp_path / "store", **options)
    return read_table(path)


def rows_of(*pairs):
    return [{"prompt": prompt, "response": response} for prompt, response in pairs]


def test_rows_are_scored_split_and_kept_in_order(tmp_path, base):
    rows = rows_of(("a", "good one"), ("b", "bad two three"), ("b", "meh"), ("b", "meh"))
    table = score_rows(tmp_path, base, rows)
    assert table["response"].to_pylist() == ["good one", "bad two three", "meh"]
    np.testing.assert_allclose(table["short"].to_numpy(), -np.log([3, 4, 2]), rtol=1e-6)
    train = table.filter(pc.equal(table["split"], "train"))["short"].to_numpy()
    statistics = json.loads(table.schema.metadata[b"rewards"])
    assert statistics["short"] == {"mean": train.mean(), "std": pytest.approx(train.std())}
    splits = dict(zip(table["prompt"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert sorted(splits.values()) == ["test", "train"]


def test_reference_rows_have_the_statistics_of_their_own_rewards(tmp_path, base):
    """And not those of the scores that the data brought along, in units of its own."""
    rows = rows_of(("a", "one"), ("b", "two three"), ("c", "four"), ("d", "five six seven"))
    rows = [row | {"short": 100.0 * number} for number, row in enumerate(rows)]
    data = {"source": str(tmp_path / "rows.parquet"), "scores": "short=short"}
    score_rows(tmp_path, base, rows, data=data, models=["short=brief"])
    path, scored = tmp_path / "reference.parquet", Output(tmp_path / "scores.parquet", "", {})
    score_reference(
        path, tmp_path, scored, base=base, models=["short=brief"], backend="jax",
        dtype="float32", batch_size=16, store=tmp_path / "store",
    )  # fmt: skip
    table = read_table(path)
    own = table["short"].to_numpy().astype(np.float64)
    np.testing.assert_allclose(statistics_of(table, ["short"], path), [[own.mean(), own.std()]])
    assert (own < 0).all()


def test_rows_of_unfit_length_are_left_out(tmp_path, base):
    rows = rows_of(("a", "one"), ("b", "x" * 50), ("c", "two"), ("d", ""))
    rows[3]["response"] = "y"
    table = score_rows(tmp_path, base, rows, min_tokens=5, max_tokens=20)
    assert table["response"].to_pylist() == ["one", "two"]
    with pytest.raises(InputError, match="no row has 60 to 70 tokens"):
        score_rows(tmp_path, base, rows, min_tokens=60, max_tokens=70)
    with pytest.raises(InputError, match="no row has 60 to 512 tokens, the model's context; "):
        score_rows(tmp_path, base, rows, min_tokens=60, max_tokens=9999)


def test_a_prompt_beyond_the_context_is_named_by_row(tmp_path, base):
    for length in (600, 492):
        rows = rows_of(("a", "x"), ("b" * length, "y"))
        message = rf"row 1: the prompt has {length + 1} tokens, .* response of 20 .* context of 512"
        with pytest.raises(InputError, match=message):
            score_rows(tmp_path, base, rows)
    repeated = rows_of(("a", "x"), ("a", "x"), ("b" * 600, "y"))
    with pytest.raises(InputError, match="row 2: "):  # as the file counts, duplicates included
        score_rows(tmp_path, base, repeated)
    score_rows(tmp_path, base, rows_of(("a", "x"), ("b" * 491, "y")), max_tokens=512)


def test_a_response_beyond_the_context_is_named_by_row_before_training(tmp_path, base):
    """Generated text may have more tokens when it is read again than when it was written."""
    table = pa.table({"prompt": ["a", "b", "c"], "response": ["x", "y", "z" * 600]})
    with pytest.raises(InputError, match=r"generated.parquet: row 2: .* context of 512; shorten"):
        examples_of(base, Path("generated.parquet"), table, np.array([[0, 2]]))


def test_columns_of_the_users_own_do_not_mix_with_ours(tmp_path, base):
    rows = rows_of(("a", "x y"), ("b", "z"))
    for row in rows:
        row |= {"split": "validation", "collapsed": True, "truncated": "no"}
    table = score_rows(tmp_path, base, rows)
    assert table.column_names == [
        "prompt", "response", "source_row", "split", "short", "positivity",
    ]  # fmt: skip
    assert set(table["split"].to_pylist()) == {"train", "test"}


def test_a_tokenizer_without_end_token_is_refused(tmp_path, base):
    base.tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        score_rows(tmp_path, base, rows_of(("a", "x"), ("b", "y")))


def test_a_truncated_row_is_trained_without_an_end(tmp_path, base):
    columns = {"prompt": ["p", "p"], "response": ["ab", "ab"], "truncated": [True, False]}
    examples = examples_of(base, Path("a.parquet"), pa.table(columns), np.array([[0], [1]]))
    ends = (examples.tokens == base.tokenizer.eos_token_id).any(axis=-1)
    assert ends.tolist() == [[False], [True]]


def test_held_out_rows_are_those_most_like_an_adapters_own():
    table = pa.table(
        {
            "a": [0.0, 1.0, 9.0, 8.0, 0.1, 9.0, 0.3],
            "b": [5.0] * 7,  # of which nothing can be told
            "split": ["train"] * 4 + ["test"] * 3,
        }
    )
    row_ids = np.array([[0, 1], [2, 3]])
    assert held_out_rows(table, row_ids, ["a", "b"], 2).tolist() == [[6, 4], [5, 6]]
    assert held_out_rows(table, row_ids, ["a", "b"], 4).size == 0
    assert held_out_rows(table.drop_columns(["split"]), row_ids, ["a", "b"], 2).size == 0


def select_from(tmp_path, columns, k=2, preferences=((0.0, 1.0), (1.0, 0.0)), gates=(), rule="ray"):
    path = tmp_path / "scored.parquet"
    size = len(columns["a"])
    texts = {"prompt": ["p"] * size, "response": ["word " * (row + 1) for row in range(size)]}
    write_table(path, pa.table(texts | columns))
    options = {"range_scope": "data", "normalize": True, "min_pool_size": 0}
    out = tmp_path / "selection.parquet"
    write_selection(
        out, tmp_path, Output(path, "", {}), objectives=["a", "b"],
        preferences=[list(row) for row in preferences], k=k, gates=gates, rule=rule, **options,
    )  # fmt: skip
    return read_table(out)


def test_held_out_and_collapsed_rows_are_never_selected(tmp_path):
    columns = {"a": [9.0, 1.0, 2.0, 3.0], "b": [9.0, 3.0, 2.0, 1.0]}
    for marks in ({"split": ["test", *["train"] * 3]}, {"collapsed": ["loop", "", "", ""]}):
        selection = select_from(tmp_path, columns | marks)
        assert selection["row_id"].to_pylist() == [1, 2, 3, 2]


def test_the_chebyshev_rule_selects_from_all_candidates(tmp_path, caplog):
    columns = {
        "a": [9.0, 1.0, 2.0, 3.0],
        "b": [9.0, 3.0, 1.0, 2.0],
        "split": ["test", *["train"] * 3],
    }
    with caplog.at_level("INFO"):
        selection = select_from(tmp_path, columns, k=1, rule="chebyshev")
    assert selection["row_id"].to_pylist() == [1, 3]
    assert "pool of all 3 rows in 2 layers" in caplog.text and "min_pool_size" not in caplog.text


@pytest.mark.parametrize(
    ("rule", "first_layer", "warns"),
    [("ray", 9, True), ("ray", 5, False), ("weighted_sum", 9, False), ("chebyshev", 9, False)],
)
def test_a_pool_that_layers_do_not_make_is_warned_of(rule, first_layer, warns):
    ranks = np.repeat([0, 1], [first_layer, 40])
    result = Selection(np.zeros((2, 3)), np.zeros((2, 3)), ranks, np.zeros(2), np.ones(2))
    advice = pool_advice(result, rule, 6)
    assert bool(advice) == warns
    assert "9 of 49 rows, more than the pool of 6" in advice or not warns


def test_the_log_warns_where_all_rows_are_on_the_front(tmp_path, caplog):
    columns = {"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 2.0, 1.0]}
    select_from(tmp_path, columns, k=1)
    assert "alone holds 4 of 4 rows, more than the pool of 2 that is wanted" in caplog.text


def test_too_few_rows_and_flat_objectives_are_refused(tmp_path):
    columns = {"a": [1.0, 2.0, 3.0], "b": [3.0, 2.0, 1.0]}
    with pytest.raises(InputError, match="3 rows to select from, fewer than k=4"):
        select_from(tmp_path, columns, k=4)
    with pytest.raises(InputError, match="objective 'b' is 1.0 in every row"):
        select_from(tmp_path, columns | {"b": [1.0, 1.0, 1.0]})


def test_no_two_steps_share_a_seed():
    seeds = {step_seed(seed, name) for seed in range(50) for name in ("init", "split", "stage1")}
    assert len(seeds) == 150


def test_a_dated_template_makes_the_date_count(base):
    assert "date" not in prompt_options(base)
    chat = dataclasses.replace(base, prompt_format="chat", date="2024-02-03")
    assert "date" not in prompt_options(chat)
    dated = dataclasses.replace(chat)
    dated.tokenizer.chat_template = "{{ strftime_now('%Y') }}{{ messages[0].content }}"
    assert prompt_options(dated)["date"] == "2024-02-03"


def test_a_row_that_the_template_cuts_is_named(tmp_path, base):
    chat = dataclasses.replace(base, prompt_format="chat")
    chat.tokenizer.chat_template = "{{ messages[0].content[:20] }}"
    rows = rows_of(("short", "la"), ("a prompt of many more words", "la"))
    with pytest.raises(
        InputError, match="rows.parquet: row 1: .* leaves out the text .*'a prompt of"
    ):
        score_rows(tmp_path, chat, rows)
