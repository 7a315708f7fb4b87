"""`paretohqd convert`: any source as rows or pairs in a file; the commands of docs/data.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paretohqd_jax.commands import run
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.errors import InputError

ROWS = [
    {"prompt": prompt, "response": response, "rating": rating, "brief": brief}
    for prompt in "pq"
    for response, rating, brief in (("a", 1, 0.0), ("b b", 2, -1.0), ("c", 3, 1.0))
]


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_the_commands_of_the_guide(capsys):
    guide = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    commands = re.findall(r"^paretohqd (convert .*)$", guide, re.M)
    assert len(commands) == 2
    for command in commands:
        run(command.split())
    assert read_table("rows.parquet")["helpful"].to_pylist() == [1, 2, 3] * 2
    pairs = read_table("pairs.parquet").to_pylist()
    assert [(row["chosen"], row["rejected"], row["brief"]) for row in pairs[:3]] == [
        ("b b", "a", -1), ("c", "a", 1), ("c", "b b", 1)
    ]  # fmt: skip
    assert "pairs.parquet: 6 rows with prompt, chosen, rejected, helpful, brief" in (
        capsys.readouterr().out
    )


def test_a_share_of_conflict(capsys):
    run("convert answers.jsonl --pairs --conflict 1 --out pairs.csv".split())
    assert {row["brief"] for row in read_table("pairs.csv").to_pylist()} == {-1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("answers.jsonl --conflict 0.5", "give --pairs"),
        ("answers.jsonl --columns prompt", "write it like 'prompt=question'"),
        ("answers.jsonl --columns prompt=question", "answers.jsonl: no column 'question'"),
        ("answers.jsonl --columns a=prompt,b=prompt", "name each column once"),
        ("answers.jsonl --columns a=prompt,a=brief", "name each column once"),
        ("answers.jsonl --columns text=response", "answers.jsonl: no column 'response'"),
        ("answers.jsonl --pairs --conflict 0.5 --seed -1", "seed -1: give .* a seed >= 0"),
        ("answers.jsonl --format hh", "answers.jsonl: no column 'chosen', 'rejected'"),
        ("answers.jsonl --format chatml", "--format.*invalid choice"),
        ("answers.jsonl --pairs --conflict 1.5", "conflict fraction 1.5, seed 0: give a share in"),
        ("nowhere.jsonl", "no such file or directory"),
        ("https://example.org/a.csv", "source='https.*: addresses are not read; download"),
        ("", "source=''.*: no such file or directory"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(InputError, match=message):
        run(["convert", *(options.split() or [""]), "--out", "out.parquet"])
    assert not Path("out.parquet").exists()
