from __future__ import annotations

import gzip
import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.reward_columns import check_magnitudes, check_ranges, rewards_matrix
from paretohqd_jax.data.rows import (
    OUR_COLUMNS,
    SELECTION_COLUMNS,
    WRITTEN_FORMATS,
    check_kept,
    check_texts,
    check_writable,
    drop_duplicates,
    read_table,
    write_table,
)
from paretohqd_jax.errors import InputError
from paretohqd_jax.sampling.generation import SCHEMA

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


TEXTS = [
    "2024-01-01", "2024-01-01T10:00:00Z", "007", "1e5", "nan", "NA", "", "True", "a\r\nb", "a\rb",
    " x ", '"q", z', "\x00", "\u2028\x85", "\ufeff", "😀", "-", "18446744073709551616", None,
]  # fmt: skip
COLUMNS = pa.table(
    {
        "prompt": TEXTS,
        "id": [f"{row:03d}" for row in range(len(TEXTS))],
        "date": [f"2024-01-{row + 1:02d}" for row in range(len(TEXTS))],
        "unsigned": pa.array([2**64 - 1 - row for row in range(len(TEXTS))], pa.uint64()),
        "wide": pa.array([Decimal(10**30 + row) for row in range(len(TEXTS))]),
    }
)


@pytest.mark.parametrize("suffixes", itertools.product(WRITTEN_FORMATS, repeat=2))
def test_every_byte_of_a_text_and_every_integer_survives_two_files(tmp_path, suffixes):
    table = COLUMNS
    for number, suffix in enumerate(suffixes):
        path = tmp_path / f"rows{number}{suffix}"
        write_table(path, table)
        table = read_table(path)
    for name in COLUMNS.column_names:
        assert table[name].to_pylist() == COLUMNS[name].to_pylist(), name


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("\ufeff{'a': 1}\r\n\r\n{'b': 'x'}\r\n", [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ("{'a': 1}\n{'a': 2.5}\n{'a': null}", [{"a": 1.0}, {"a": 2.5}, {"a": None}]),
        ("{'a': '2024-01-01', 'b': ['10:00']}", [{"a": "2024-01-01", "b": ["10:00"]}]),
        ("{'a': Infinity}\n{'a': 1}", [{"a": float("inf")}, {"a": 1.0}]),
        ("{'a': ''}\n{'a': null}", [{"a": ""}, {"a": None}]),
        ("{'a': 'x\u2028y'}", [{"a": "x\u2028y"}]),
    ],
)  # fmt: skip
def test_jsonl_as_it_is_found(tmp_path, content, rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.replace("'", '"').encode())
    assert read_table(path).to_pylist() == rows


def test_a_literal_nan_is_read_and_no_reward(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": NaN}\n{"a": NaN, "b": 1}\n')
    with pytest.raises(InputError, match="row 1: 'a' is nan, not a finite number"):
        rewards_matrix(read_table(path), ["a"], path)


@pytest.mark.parametrize("content", ['[{"a": 1},\n {"a": 2}]', '\ufeff\n[{"a": 1}, {"a": 2}]\n',
                                     '{"a": 1}\n{"a": 2}\n'])  # fmt: skip
def test_json_holds_an_array_or_lines(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content, "utf-8")
    assert read_table(path)["a"].to_pylist() == [1, 2]
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(content.encode()))
    assert read_table(path)["a"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (["007", "12"], ["007", "12"]),
        (["1", "NA"], [1, None]),
        (["NA", "no"], ["NA", "no"]),
        ([" 1", "2 "], [1, 2]),
        (["1", "2.5"], [1.0, 2.5]),
        (["True", "false"], [True, False]),
        (["0x10", "1"], ["0x10", "1"]),
        (["2024-01-01", "10:00"], ["2024-01-01", "10:00"]),
        (['""', ""], ["", None]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
    ],
)
def test_columns_of_a_csv(tmp_path, fields, values):
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffprompt,a\r\n" + "".join(f"1,{field}\r\n" for field in fields), "utf-8")
    table = read_table(path)
    assert table["a"].to_pylist() == values and table["prompt"].to_pylist() == ["1", "1"]


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
        ("rows.jsonl", '{"a": 1}'.encode("utf-16"), "cannot be read as jsonl: it is UTF-16"),
        ("rows.csv", "a,b\n1,2".encode("utf-16"), "cannot be read as csv: it is UTF-16"),
        ("rows.jsonl", b'{"a": 1, "a": 2}', "in row 0: 'a' is there more than once"),
        ("rows.jsonl", b'{"a": 1}\n\n{"a": 2},\n', "in row 1: Extra data"),
        ("rows.jsonl", b'{"a": "\\ud83d"}', "in row 0: 'a' is .*half of a surrogate pair"),
        ("rows.jsonl", b'{"a": 9007199254740993}\n{"a": 0.5}', "cannot hold 9007199254740993"),
        ("rows.jsonl", b'{"a": true}\n{"a": 1}', "in row 1: 'a' is 1"),
        ("rows.jsonl", b"[" * 100_000, "cannot be read as jsonl: .*; name such a file .json"),
        ("rows.json", b"[" * 100_000, "cannot be read as json: .*recursion"),
        ("rows.json", b"[1, 2]", "in row 0: 1 is no object in braces"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-9], "cannot be read as jsonl"),
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
        ("a" * 300 + ".csv", "cannot be written in .*File name too long"),
        ("/proc/rows.csv", "cannot be written in /proc"),
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


def test_a_trial_leaves_alone_what_another_process_writes(tmp_path):
    half = tmp_path / ".tmp-rows.csv"
    half.write_text("half")
    check_writable(tmp_path / "rows.csv")
    assert half.read_text() == "half" and [*tmp_path.iterdir()] == [half]


@pytest.mark.parametrize("values", [[[1, 2], [3]], [{"a": 1}, {"a": 2}]])
def test_a_nested_column_does_not_go_into_a_csv(tmp_path, values):
    table = pa.table({"prompt": ["a", "b"], "extra": values})
    with pytest.raises(InputError, match="rows.csv: .* column 'extra'; write .parquet or .jsonl"):
        write_table(tmp_path / "rows.csv", table)
    write_table(tmp_path / "rows.jsonl", table)
    assert read_table(tmp_path / "rows.jsonl")["extra"].to_pylist() == values


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_a_format_cannot_hold_is_named(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    empty = pa.array([{}], pa.struct([]))
    with pytest.raises(InputError, match=f"rows{suffix}: .*write .*jsonl"):
        write_table(path, pa.table({"a": empty}))
    assert not path.exists()


def test_texts_of_parquet_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    write_table(path, pa.table({"prompt": text}))
    with pytest.raises(InputError, match="cannot be read as parquet: .*UTF8"):
        read_table(path)


def test_no_table_has_a_column_that_an_objective_may_be_called():
    assert set(SCHEMA.names) | set(SELECTION_COLUMNS) | {"split", "collapsed"} <= OUR_COLUMNS


def test_a_column_of_the_users_is_not_replaced():
    table = pa.table({"rank": [5.0, 1.0]})
    check_kept(table, {"rank": np.array([5, 1]), "distance": np.zeros(2)}, "t")
    with pytest.raises(InputError, match="t: has a column 'rank', and so has the output"):
        check_kept(table, {"rank": np.array([0, 1])}, "t")


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


def test_decimals_that_float64_cannot_tell_apart_are_refused():
    column = pa.array([Decimal(2**64), Decimal(2**64 + 1)])
    with pytest.raises(InputError, match="t: 'a' holds decimal numbers that are the same"):
        rewards_matrix(pa.table({"a": column}), ["a"], "t")


def test_unsigned_integers_beside_signed_ones_stay_exact():
    table = pa.table({"a": pa.array([2**63, 2**63 + 1], pa.uint64()), "b": [2, 1]})
    assert rewards_matrix(table, ["a", "b"], "t").tolist() == [[2**63, 2], [2**63 + 1, 1]]


def test_texts_that_look_like_numbers_are_no_rewards():
    with pytest.raises(InputError, match="t: 'a' holds texts such as '007'"):
        rewards_matrix(pa.table({"a": ["007", "1"]}), ["a"], "t")


@pytest.mark.parametrize("values", [[-1e308, 1e308], [0, 5e-324], [0, 1e-200]])
def test_ranges_beyond_reckoning_are_refused(values):
    rewards = np.array([values, [0, 1]], float).T
    with pytest.raises(InputError, match="t: objective 'a' goes from"):
        check_ranges(rewards, ["a", "b"], "t")
    check_magnitudes(np.array([[1e-200], [1e-200]]), ["a"], "t")


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
