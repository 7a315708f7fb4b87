from __future__ import annotations

import gzip
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import (
    check_texts,
    check_writable,
    drop_duplicates,
    read_table,
    write_table,
)
from paretohqd_jax.errors import InputError

ROWS = pa.table({"prompt": ["a", "b"], "response": ["x\ny", 'é "q", z'], "helpful": [0.1, -2.0]})


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write_table(path, ROWS)
    assert read_table(path).to_pylist() == ROWS.to_pylist()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_no_format_rounds_to_a_few_digits(tmp_path):
    values = np.random.default_rng(0).normal(size=100)
    for suffix in (".parquet", ".jsonl", ".csv"):
        write_table(tmp_path / f"rows{suffix}", pa.table({"score": values}))
        read = read_table(tmp_path / f"rows{suffix}")["score"].to_numpy()
        np.testing.assert_array_equal(read, values)


NUMBERS = [
    "0.1", "0.30000000000000004", "1e-7", "-2.5E+3", "5e-324", "1.7976931348623157e308", "7",
    "0.1000000000000000055511151231257827", "3.14159265358979323846264338327950288",
    "18446744073709551616", "123456789012345678901234567890.5",
]  # fmt: skip


@pytest.mark.parametrize("numbers", [NUMBERS, ["1", "9223372036854775808"], ["2", "2.5"]])
def test_numbers_of_any_length_are_the_nearest_float64(tmp_path, numbers):
    texts = {
        ".jsonl": "".join(f'{{"a": {number}}}\n' for number in numbers),
        ".csv": "a\n" + "".join(f"{number}\n" for number in numbers),
    }
    for suffix, text in texts.items():
        path = tmp_path / f"rows{suffix}"
        path.write_text(text)
        rewards = rewards_matrix(read_table(path), ["a"], path)
        np.testing.assert_array_equal(rewards[:, 0], [float(number) for number in numbers])


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_decimals_stay_numbers(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write_table(path, pa.table({"a": [Decimal("0.100"), Decimal("-2.345")]}))
    assert rewards_matrix(read_table(path), ["a"], path)[:, 0].tolist() == [0.1, -2.345]


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_texts_of_other_kinds_are_read_as_texts(tmp_path, kind):
    path = tmp_path / "rows.parquet"
    texts = pa.array(["a", "b", "a"]).cast(kind)
    write_table(path, pa.table({"prompt": texts, "score": [1, 2, 3]}, metadata={"kept": "yes"}))
    table = read_table(path)
    assert table.schema.field("prompt").type == pa.string()
    assert table["prompt"].to_pylist() == ["a", "b", "a"] and table["score"].to_pylist() == [
        1,
        2,
        3,
    ]
    assert table.schema.metadata[b"kept"] == b"yes"


def test_gzipped_jsonl_is_read(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "p", "score": 1}\n{"prompt": "q", "score": 2}\n'))
    assert read_table(path)["score"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", b"a", "unknown format"),
        ("rows.csv", b"", "cannot be read as csv"),
        ("rows.csv", b"a,b\n", "no rows"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "more than one column 'a'"),
        ("rows.jsonl", b'{"a": 1}\n{"a": "x"}\n', "in row 1"),
        ("rows.jsonl", b'{"a": 1}\n{"a"', "cannot be read as jsonl"),
        ("rows.jsonl", b'{"a": "\xff"}\n', "cannot be read as jsonl: .*UTF8.*; give .* in UTF-8"),
        ("rows.jsonl", b'[{"a": 1}]', "cannot be read as jsonl: .*; give one JSON object per line"),
        ("rows.csv", b"prompt\ncaf\xe9\n", "cannot be read as csv: .*UTF8"),
        ("rows.csv", b"a,b\n1,2,3\n", "cannot be read as csv: .*1,2,3; give .* as many fields in"),
        ("rows.parquet", b"PAR1 but cut", "cannot be read as parquet"),
        ("rows.jsonl.gz", b"not gzip", "cannot be read as jsonl"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_rows_longer_than_a_megabyte_are_read(tmp_path):
    long = "x" * 3_000_000
    for suffix in (".jsonl", ".csv"):
        path = tmp_path / f"rows{suffix}"
        write_table(path, pa.table({"prompt": ["p", long, "q"]}))
        assert read_table(path)["prompt"].to_pylist() == ["p", long, "q"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.txt", "must end in .parquet, .jsonl, .csv"),
        ("rows.jsonl.gz", "must end in .parquet, .jsonl, .csv"),
        ("file/rows.csv", "file is not a folder"),
        ("file/deep/rows.csv", "file is not a folder"),
        ("folder.csv", "is a folder"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for call in (check_writable, lambda path: write_table(path, ROWS)):
        with pytest.raises(InputError, match=message):
            call(tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_folders_are_made_when_a_table_is_written(tmp_path):
    path = tmp_path / "new" / "deep" / "rows.csv"
    check_writable(path)
    assert not path.parent.exists()
    write_table(path, ROWS)
    assert read_table(path).num_rows == 2


@pytest.mark.parametrize("values", [[[1, 2], [3]], [{"a": 1}, {"a": 2}]])
def test_a_nested_column_does_not_go_into_a_csv(tmp_path, values):
    table = pa.table({"prompt": ["a", "b"], "extra": values})
    with pytest.raises(InputError, match="rows.csv: .* column 'extra'; write .parquet or .jsonl"):
        write_table(tmp_path / "rows.csv", table)
    write_table(tmp_path / "rows.jsonl", table)
    assert read_table(tmp_path / "rows.jsonl")["extra"].to_pylist() == values


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.csv: no such file"):
        read_table(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan")], "row 1: 'score' is nan"),
        ([float("inf"), 1.0], "row 0: 'score' is inf"),
        ([1.0, None], "row 1: 'score' is missing"),
        (["1", "N/A"], "row 1: 'score' is 'N/A', not a number"),
        ([True, False], "row 0: 'score' is True, not a number"),
    ],
)
def test_a_bad_reward_is_named_by_row_and_column(values, message):
    with pytest.raises(InputError, match=f"data.csv: {message}"):
        rewards_matrix(pa.table({"score": values}), ["score"], "data.csv")


def test_rewards_keep_every_bit_of_float64():
    values = [1.0, 1.0 + 2.0**-52]
    rewards = rewards_matrix(pa.table({"a": values, "b": [1, 2**53 - 1]}), ["a", "b"], "t")
    assert rewards.dtype == np.float64
    assert rewards[:, 0].tolist() == values and rewards[1, 1] == 2**53 - 1


def test_large_integers_stay_apart():
    large = [2**53, 2**53 + 1, -(2**63)]
    rewards = rewards_matrix(pa.table({"a": large, "b": [1, 2, 3]}), ["a", "b"], "t")
    assert rewards.dtype == np.int64 and rewards[:, 0].tolist() == large
    unsigned = pa.array([2**64 - 1, 2**64 - 2], pa.uint64())
    assert (
        rewards_matrix(pa.table({"a": unsigned}), ["a"], "t")[:, 0].tolist() == unsigned.to_pylist()
    )
    for other in ([0.5, 1.0, 2.0], pa.array([1, 2, 2**63], pa.uint64())):
        with pytest.raises(InputError, match="t: 'a' holds integers beyond 2\\*\\*53"):
            rewards_matrix(pa.table({"a": large, "b": other}), ["a", "b"], "t")


@pytest.mark.parametrize("kind", [pa.decimal128(10, 3), pa.decimal256(50, 3)])
def test_decimals_are_numbers(kind):
    column = pa.array([Decimal("1.25"), Decimal("-3")], kind)
    assert rewards_matrix(pa.table({"a": column}), ["a"], "t")[:, 0].tolist() == [1.25, -3.0]


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(InputError, match="no column 'harmless'; the file has 'prompt'"):
        rewards_matrix(pa.table({"prompt": ["a"]}), ["harmless"], "data.csv")


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        (["a", " \n"], ["x", "y"], "row 1: prompt is empty"),
        (["a", "b"], ["", "y"], "row 0: response is empty"),
        (["a", "b"], ["x", None], "row 1: response is empty"),
        ([1, 2], ["x", "y"], "'prompt' holds int64, not text"),
    ],
)
def test_empty_texts_are_named(prompts, responses, message):
    with pytest.raises(InputError, match=message):
        check_texts(pa.table({"prompt": prompts, "response": responses}), "data.csv")


def test_only_equal_pairs_are_duplicates():
    table = pa.table(
        {"prompt": ["a", "a", "b", "a"], "response": ["x", "y", "x", "x"], "n": [0, 1, 2, 3]}
    )
    assert drop_duplicates(table)["n"].to_pylist() == [0, 1, 2]
    assert drop_duplicates(table.slice(0, 0)).equals(table.slice(0, 0))
