"""Conditions on columns: how they are written, and which rows they keep."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.gates import count_failures, failures, in_words, parse_gates
from paretohqd_jax.errors import InputError


@pytest.mark.parametrize(
    ("text", "gate", "plain"),
    [
        ("relevance>=0.3", ("relevance", ">=", 0.3), "relevance>=0.3"),
        (" words > 8 ", ("words", ">", 8.0), "words>8"),
        ("likelihood@a/b>=-4.0", ("likelihood@a/b", ">=", -4.0), "likelihood@a/b>=-4"),
        ("ll=likelihood@C:/d<1e-3", ("ll=likelihood@C:/d", "<", 1e-3), "ll=likelihood@C:/d<0.001"),
        ("my score<=2", ("my score", "<=", 2.0), "my score<=2"),
    ],
)
def test_gates_are_read_and_written(text, gate, plain):
    (parsed,) = parse_gates([text, text])
    assert tuple(parsed) == gate and str(parsed) == plain
    assert parse_gates([plain]) == [parsed]


@pytest.mark.parametrize(
    "text",
    ["", "relevance", "relevance>=", ">=0.3", "a=0.3", "a==0.3", "a>=>3", "a=>3", "a>=b", "a>=nan",
     "a<inf", "a>1<2", 3],
)  # fmt: skip
def test_what_is_no_gate_is_refused_in_one_line(text):
    with pytest.raises(InputError) as caught:
        parse_gates(["b>1", text])
    assert str(caught.value).startswith(f"config.select.gates: {text!r} is no gate; write a name")
    with pytest.raises(InputError, match="^--gate: "):
        parse_gates([text], "--gate")


def test_rows_that_fail_are_counted_by_gate():
    table = pa.table({"a": [1, 2, 3, 4], "b": [0.5, -1.0, 0.5, float(2**60)]})
    gates = parse_gates(["a>=2", "a<4", "b>0"])
    failed = failures(table, gates, "rows")
    np.testing.assert_array_equal(failed, [[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
    failed = failures(table, parse_gates(["a>1", "b<0.5"]), "rows")
    counts = count_failures(parse_gates(["a>1", "b<0.5"]), failed)
    assert counts == {
        "a>1": {"failed": 1, "failed_alone": 0}, "b<0.5": {"failed": 3, "failed_alone": 2},
    }  # fmt: skip
    assert in_words(counts) == "a>1 takes 1 (0 alone), b<0.5 takes 3 (2 alone)"
    assert failures(table, [], "rows").shape == (0, 4)


def test_a_bound_is_what_the_column_can_hold():
    """0.3 in float32 is larger than 0.3, and no gate should be about that."""
    column = pa.array([0.3], pa.float32())
    for text in ("a>=0.3", "a<=0.3"):
        assert not failures(pa.table({"a": column}), parse_gates([text]), "rows").any()
    for text in ("a>0.3", "a<0.3"):
        assert failures(pa.table({"a": column}), parse_gates([text]), "rows").all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan")], "rows: row 7: 'a' is nan, not a finite number"),
        ([1.0, None], "rows: row 7: 'a' is missing"),
        (["x", "y"], "rows: row 5: 'a' is 'x', not a number"),
        ([True, False], "rows: row 5: 'a' is True, not a number"),
    ],
)
def test_columns_without_numbers_are_named(values, message):
    table = pa.table({"a": values, "source_row": [5, 7]})
    with pytest.raises(InputError, match=message):
        failures(table, parse_gates(["a>0"]), "rows")
    with pytest.raises(InputError, match="rows: no column 'b'; the file has 'a'"):
        failures(table, parse_gates(["b>0"]), "rows")
