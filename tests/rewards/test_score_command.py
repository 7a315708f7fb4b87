"""Rewards for a file from the command line, and the check of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.main import console


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = {"prompt": ["a", "b", "c"], "response": ["good", "bad two", "so so so"]}
    write_table(path, pa.table(texts | {"mine": [1, 2, 3]}))
    return str(path)


def test_a_file_gets_a_column_per_model_and_their_statistics(rows, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    console(["paretohqd", "score", rows, "--models", "short=brief,positivity", "--out", str(out)])
    table = read_table(out)
    assert table.column_names == ["prompt", "response", "mine", "short", "positivity"]
    short = table["short"].to_numpy()
    np.testing.assert_allclose(short, -np.log([2, 3, 4]), rtol=1e-6)
    assert json.loads(table.schema.metadata[b"rewards"])["short"]["mean"] == pytest.approx(
        short.mean()
    )
    assert f"short: mean {short.mean():.4g}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", "scores.parquet"}
    console(["paretohqd", "inspect", str(out), "--objectives", "short,positivity"])
    assert "3 rows" in capsys.readouterr().out


def test_no_reward_model_is_refused(rows, tmp_path, capsys):
    with pytest.raises(SystemExit):
        console(["paretohqd", "score", rows, "--models=", "--out", str(tmp_path / "scores.csv")])
    assert "error: --models names no reward model" in capsys.readouterr().err


def test_conversations_are_scored_and_stay_lists_of_messages(tmp_path):
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "q"}]
    path, out = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    path.write_text(
        json.dumps({"messages": [*asked, {"role": "assistant", "content": "a b"}], "mine": 1})
    )
    command = ["paretohqd", "score", str(path), "--models", "brief", "--out"]
    console([*command, str(out)])
    [row] = read_table(out).to_pylist()
    assert row["brief"] == pytest.approx(-np.log(3))
    assert (row["prompt"], row["response"], row["mine"]) == (asked, "a b", 1)
    with pytest.raises(SystemExit):  # before any is scored
        console([*command, str(tmp_path / "scores.csv")])
    assert not (tmp_path / "scores.csv.partial").exists()


def test_a_file_gets_the_likelihood_of_a_model(rows, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    command = ["paretohqd", "score", rows, "--out", str(out), "--models"]
    console([*command, "likelihood@random:toy,words"])
    table = read_table(out)
    assert table.column_names == ["prompt", "response", "mine", "likelihood", "words"]
    assert max(table["likelihood"].to_pylist()) < 0
    with pytest.raises(SystemExit):
        console([*command, "likelihood"])
    assert "there is no base model outside a run" in capsys.readouterr().err


def test_a_killed_command_says_what_it_kept_and_goes_on(rows, gpt2, tmp_path, capsys, monkeypatch):
    """Unless the model was trained again in its place; a copy of it will do."""
    out, model = tmp_path / "scores.parquet", shutil.copytree(gpt2, tmp_path / "model")

    def command(model, *words):
        models = f"helpful@{model},brief"
        console(["paretohqd", "score", rows, "--models", models, "--out", str(out), *words])
        return capsys.readouterr().err

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("paretohqd_jax.commands.score.write_table", killed)
        with pytest.raises(SystemExit):
            command(model)
    told = capsys.readouterr().err
    assert f"brief: of 3 different rows 0 from the store, 3 scored; kept in {out}.partial/" in told
    assert "brief: of 3 different rows 3 from the store, 0 scored" in command(gpt2)
    assert not Path(f"{out}.partial").exists()

    monkeypatch.setenv("HOME", str(tmp_path))
    cache = ("--cache=~/cache",)
    counts = "helpful@{}: of 3 different rows {} from the store, {} scored".format
    assert counts(model, 0, 3) in command(model, *cache)
    told = command(gpt2, *cache)
    assert counts(gpt2, 3, 0) in told and "loading" not in told
    weights = model / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 64
    weights.write_bytes(changed)
    assert counts(model, 0, 3) in command(model, *cache)
    assert counts(model, 3, 0) in command(model, *cache)
    assert (tmp_path / "cache").is_dir()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_inspecting_one_row_and_prompts_that_are_messages(tmp_path, capsys):
    scores = {"a": [float(i) for i in range(60)], "b": [float(i * 7 % 60) for i in range(60)]}
    prompts = [[{"role": "user", "content": "hi"}]] * 60
    table = pa.table({"prompt": prompts, "response": ["same"] * 60} | scores)
    write_table(tmp_path / "messages.parquet", table)
    console(["paretohqd", "inspect", str(tmp_path / "messages.parquet"), "--objectives", "a,b"])
    assert "warning: duplicate-heavy: 98 %" in capsys.readouterr().out
    write_table(tmp_path / "one.parquet", table.slice(0, 1))
    console(["paretohqd", "inspect", str(tmp_path / "one.parquet"), "--objectives", "a,b"])
    assert "1 non-dominated layers: 1 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("brief,brief", "name each column once"),
        ("prompt=brief", "its column cannot be called 'prompt'"),
        ("=brief", "its column cannot be called ''"),
        (
            "brief,kind",
            "unknown reward model 'kind'; use one of brief, echo, positivity, words, harmless",
        ),
    ],
)
def test_models_that_do_not_exist_or_collide(rows, tmp_path, capsys, models, message):
    with pytest.raises(SystemExit) as stop:
        console(
            ["paretohqd", "score", rows, "--models", models, "--out", str(tmp_path / "o.parquet")]
        )
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
