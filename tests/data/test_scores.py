"""Scores that come with the data, as rewards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import write_table
from paretohqd_jax.data.scores import parse_scores
from paretohqd_jax.data.sources import load_rows
from paretohqd_jax.errors import InputError


def source_of(tmp_path, **columns):
    path = tmp_path / "rows.jsonl"
    texts = {"prompt": ["a", "b", "b"], "response": ["c", "d", "d"]}
    write_table(path, pa.table(texts | columns))
    return str(path)


def test_columns_become_objectives_as_they_are_or_as_log_odds(tmp_path):
    source = source_of(tmp_path, win_rate=[0.0, 0.75, 0.5], stars=[3, 5, 4])
    rows = load_rows(source, scores="helpful=log_odds(win_rate), nice=stars")
    assert rows.column_names == ["prompt", "response", "source_row", "helpful", "nice"]
    assert rows["nice"].to_pylist() == [3, 5]  # the third row repeats the second
    np.testing.assert_allclose(rows["helpful"], [np.log(1e-7 / (1 - 1e-7)), np.log(3)])
    assert "win_rate" not in load_rows(source).column_names


@pytest.mark.parametrize(
    ("values", "scores", "message"),
    [
        ([0.1, 1.2, 0.3], "helpful=log_odds(p)", "rows.jsonl: row 1: 'p' is 1.2, no probability"),
        ([0.1, None, 0.3], "helpful=p", "rows.jsonl: row 1: 'p' is missing"),
        (["0", "1", "much"], "helpful=p", "rows.jsonl: row 2: 'p' is 'much', not a number"),
        ([0.1, 0.2, 0.3], "helpful=q", "rows.jsonl: no column 'q'"),
    ],
)
def test_a_value_that_does_not_do_is_named(tmp_path, values, scores, message):
    with pytest.raises(InputError, match=message):
        load_rows(source_of(tmp_path, p=values), scores=scores)


@pytest.mark.parametrize("text", ["win_rate", "a=", "a=exp(p)", "a=p,a=q", "a=log_odds(p", "="])
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(InputError, match="config.data.scores=.*write OBJECTIVE=COLUMN"):
        parse_scores(text)
