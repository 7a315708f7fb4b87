"""The studies of SIPO are planned as they stand, at both sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.studies.plan import load_study, plan
from paretohqd_jax.studies.stored import read_points

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "sipo"


@pytest.mark.parametrize("size", ["toy", "controlled", "alpaca,data=rows.jsonl"])
def test_every_run_has_what_its_name_says(size, tmp_path):
    study = load_study(f"studies/sipo:{size},seeds=2")
    runs = {(run.name, run.seed): run.config for run in plan(study, tmp_path)}
    num_parts, others = (7 if size.startswith("alpaca") else 6), size != "controlled"
    assert {seed for _, seed in runs} == {0, 1} and len(runs) == 2 * (9 + num_parts + others)
    for share in (0.3, 0.5, 0.6, 0.9):
        config = runs[f"conflict.{share}", 0]
        assert (config["method"], config["pairs"]["conflict"]) == ("sipo", share)
        unfiltered = runs[f"conflict.{share}.no_filter", 0]
        assert unfiltered["pairs"] == config["pairs"] and unfiltered["sipo"]["filter"] == "none"
    assert runs["conflict.0", 0]["method"] == "mod"
    assert runs["parts.no_filter", 0]["sipo"]["filter"] == "none"
    assert runs["parts.filter_by_reward_models", 1]["sipo"]["filter"] == "rewards"
    assert runs["parts.as_the_code", 1]["sipo"]["losers"] == "both"
    if others:
        models = [runs[name, 0]["rewards"]["models"] for name in ("objectives", "parts.sipo")]
        assert models[0] != models[1] and len(models[0]) == len(models[1]) == 2
    sizes = [14, *[3] * 4, 2 + num_parts, *[3] * others]
    assert [len(table.rows) for table in study.tables] == sizes
    if size.startswith("alpaca"):
        assert {config["data"]["source"] for config in runs.values()} == {"rows.jsonl"}


def test_an_unknown_table_is_named():
    with pytest.raises(InputError, match="'partts' is not one of conflict, parts, objectives"):
        load_study("studies/sipo:toy,partts")


@pytest.mark.parametrize("size", ["alpaca", "controlled"])
def test_the_points_that_are_kept_are_those_of_its_runs(size, tmp_path):
    planned = {run.name for run in plan(load_study(f"studies/sipo:{size}"), tmp_path)}
    kept = read_points(RESULTS / f"{size}.json.gz")
    assert {run.name for run in kept} <= planned and {run.seed for run in kept} == {0, 1, 2}


@pytest.mark.slow
def test_every_table_is_made_at_toy_size(tmp_path):
    command = [sys.executable, "-m", "paretohqd_jax.main", "study", "studies/sipo:toy,seeds=1"]
    subprocess.run([*command, f"--workdir={tmp_path}"], check=True)
    tables = (tmp_path / "table.md").read_text()
    for name in ("## conflict\n", "## conflict, 0.9", "## parts", "## objectives"):
        assert name in tables
    for row in ("| 0.6, sipo, no filter | 1 |", "| as the code | 1 |", "| sipo | 1 |"):
        assert row in tables
