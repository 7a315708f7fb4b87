"""Best-of-n from the command line, and as docs/adding_a_method.md shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from toy_runs import run_toy

from paretohqd_jax.config import METHODS as OPTIONS
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.methods import METHODS
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import read_policies
from paretohqd_jax.steps.selection import write_best_of_prompt
from paretohqd_jax.studies import STUDIES

ROOT = Path(__file__).parents[2]
SHORT = ("--config.train.num_steps=3", "--config.preferences=3", "--config.generate.num_prompts=8")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("best_of_n")
    run_toy(path, *SHORT, method="best_of_n")
    return path


def test_the_page_shows_the_method_as_it_is():
    page = (ROOT / "docs/adding_a_method.md").read_text("utf-8")
    assert (ROOT / "paretohqd_jax/methods/best_of_n.py").read_text("utf-8") in page


def test_every_method_has_options_and_every_options_a_method():
    assert {*METHODS, *STUDIES} == {*OPTIONS}


def test_each_preference_learns_the_best_of_n_answers(workdir):
    generated = read_table(workdir / "generated.parquet")
    assert set(generated["policy"].to_pylist()) == {"base model"}
    prompts, counts = np.unique(generated["prompt"].to_pylist(), return_counts=True)
    assert len(prompts) == 8 and counts.max() <= 4  # alike answers count once
    best = read_table(workdir / "selection/best_of_n.parquet")
    sizes = np.bincount(best["preference_id"].to_numpy())
    assert len(sizes) == 3 and len(set(sizes)) == 1
    briefest = generated.take(best["row_id"].to_numpy()[: sizes[0]])  # of ω = (0, 1): vowels
    vowels = generated["configs.toy:vowels"].to_numpy()
    whole = np.array(generated["collapsed"].to_pylist()) == ""
    for row in briefest.to_pylist():
        own = whole & (np.array(generated["prompt"].to_pylist()) == row["prompt"])
        assert row["configs.toy:vowels"] == vowels[own].max()


def test_its_policies_are_measured_and_reported(workdir):
    run = read_policies(workdir / "policies.json")
    assert [policy.adapters for policy in run.served] == [
        ("best_of_n/w0.00_1.00",), ("best_of_n/w0.50_0.50",), ("best_of_n/w1.00_0.00",)
    ]  # fmt: skip
    points = json.loads((workdir / "evaluation/points.json").read_text())
    assert len(points["fronts"]["best_of_n"]["models"]) == 3
    report = (workdir / "report/report.html").read_text("utf-8")
    assert "best of n, then supervised fine-tuning · report of a run" in report


def test_the_best_is_by_standardised_rewards_and_equals_by_their_order(tmp_path):
    rows = {
        "prompt": ["a", "b", "a", "a", "b", "c"],
        "response": list("uvwxyz"),
        "collapsed": ["", "", "", "short", "", "loop"],
        "kind": [1.0, 5.0, 3.0, 9.0, 5.0, 9.0],
        "short": [300.0, 100.0, 100.0, 900.0, 100.0, 900.0],
    }
    write_table(tmp_path / "rows.parquet", pa.table(rows))
    write_best_of_prompt(
        tmp_path / "best.parquet", tmp_path, Output(tmp_path / "rows.parquet", "", {}),
        objectives=["kind", "short"], preferences=[[1.0, 0.0], [0.0, 1.0]],
    )  # fmt: skip
    best = read_table(tmp_path / "best.parquet")
    assert best["preference_id"].to_pylist() == [0, 0, 1, 1]
    assert best["row_id"].to_pylist() == [1, 2, 0, 1]
