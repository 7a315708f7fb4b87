"""The baseline from the command line, on rows that bring the scores of one objective along."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from toy_runs import run_toy

from configs.toy import rows
from paretohqd_jax.commands import run
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.pareto import preference_grid, select

OBJECTIVES = ["brief", "configs.toy:vowels"]
SCORES = "--config.data.scores=brief=log_odds(liked)"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The toy's rows, with a probability for each."""
    table = pa.Table.from_pylist(rows())
    liked = np.random.default_rng(0).random(table.num_rows)
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_table(path, table.append_column("liked", pa.array(liked)))
    return path


def run_scored(workdir, source, *options, method="paretohqd"):
    run_toy(workdir, f"--config.data.source={source}", SCORES, *options, method=method)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, source):
    path = tmp_path_factory.mktemp("sft")
    options = ("--config.train.num_steps=5", "--config.draw.gates=('words>=6','liked<=0.9')")
    run_scored(path, source, *options, method="sft")
    return path


def test_one_model_is_trained_on_random_rows(workdir):
    scored = read_table(workdir / "scores.parquet")
    drawn = read_table(workdir / "selection/sft.parquet")["row_id"].to_numpy()
    assert len(set(drawn)) == 12
    assert set(scored["split"].take(drawn).to_pylist()) == {"train"}
    assert min(scored["words"].take(drawn).to_pylist()) >= 6
    assert max(scored["liked"].take(drawn).to_pylist()) <= 0.9
    assert "<td>words&gt;=6</td>" in (workdir / "report/report.html").read_text("utf-8")
    assert (workdir / "sft/5").is_dir()
    assert (workdir / "adapters/sft/adapter_model.safetensors").exists()


def test_answers_are_measured_in_units_of_the_reward_models(workdir, source):
    scored, reference = (read_table(workdir / f"{n}.parquet") for n in ("scores", "reference"))
    liked = read_table(source)["liked"].take(scored["source_row"]).to_numpy()
    np.testing.assert_allclose(scored["brief"], np.log(liked / (1 - liked)), rtol=1e-6)
    words = [len(response.split()) for response in reference["response"].to_pylist()]
    np.testing.assert_allclose(reference["brief"], -np.log1p(words), rtol=1e-6)
    assert set(reference["split"].to_pylist()) == {"train"}
    frame = json.loads((workdir / "evaluation/points.json").read_text())["frames"][0]
    means = [reference[name].to_numpy().mean(dtype=np.float64) for name in OBJECTIVES]
    np.testing.assert_allclose(frame["offset"], means)


def test_a_run_of_one_model_can_be_compared(workdir, tmp_path, capsys):
    run(["compare", f"sft={workdir}", "--out", str(tmp_path)])
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    points = json.loads((workdir / "evaluation/points.json").read_text())
    assert comparison["frames"][0]["offset"] == points["frames"][0]["offset"]
    [model] = comparison["fronts"]["sft"]["models"]
    assert (model["label"], model["preference"]) == ("sft", None)
    assert comparison["fronts"]["sft"]["steerability"] is None
    assert "One model" in (workdir / "report/report.html").read_text("utf-8")
    assert "| sft | 1 |" in capsys.readouterr().out


def test_paretohqd_selects_by_the_scores_of_the_data_and_the_rule(source, tmp_path):
    options = ("--config.select.rule=weighted_sum", "--config.preferences=3")
    run_scored(tmp_path, source, *options, "--stage=score")
    run_scored(tmp_path, source, *options, "--stage=select1")
    scored = read_table(tmp_path / "scores.parquet")
    train = np.flatnonzero(np.array(scored["split"].to_pylist()) == "train")
    rewards = np.stack([scored[name].to_numpy() for name in OBJECTIVES], axis=1)[train]
    expected = train[select(rewards, preference_grid(3), 12, rule="weighted_sum").row_ids]
    selection = read_table(tmp_path / "selection/stage1.parquet")["row_id"].to_numpy()
    np.testing.assert_array_equal(selection, expected.ravel())


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("paretohqd", "select.rule=random", "config.select.rule='random' is not valid; use one of"),
        ("sft", "draw.rule=ray", "config.draw.rule='ray' is not valid; use one of random, all"),
        ("sft", "select.k=5", "no such option or key: select; `paretohqd options sft` lists all"),
        ("paretohqd", "data.scores=kind=liked", "config.data.scores='kind=liked' is not valid"),
        ("paretohqd", "data.scores=brief=loved", "rows.parquet: no column 'loved'"),
        ("sft", "draw.k=9999", "fewer than config.draw.k=9999; give more rows"),
    ],
)
def test_what_does_not_fit_is_named(source, tmp_path, capsys, method, option, message):
    with pytest.raises(SystemExit):
        run_scored(tmp_path, source, f"--config.{option}", method=method)
    assert message in capsys.readouterr().err
