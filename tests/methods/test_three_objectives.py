"""A toy run with three objectives, from the command line to the report."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.pareto import hypervolume, select

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OBJECTIVES = ("brief", "configs.toy:vowels", "configs.toy:variety")
GATES = ("likelihood>=-15", "configs.toy:vowels>0.2")
PREFERENCES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.3, 0.5]])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("three")
    preferences = ";".join(",".join(map(str, row)) for row in PREFERENCES)
    console(
        [
            "paretohqd", f"--config={ROOT / 'configs/toy.py'}", f"--workdir={path}",
            f"--config.rewards.models={OBJECTIVES}", f"--config.preferences={preferences}",
            "--config.select.k=4", "--config.train.stage1_steps=3", "--config.train.stage2_steps=2",
            f"--config.select.gates={GATES}",
            "--config.generate.max_new_tokens=12", "--config.evaluate.max_new_tokens=12",
        ]
    )  # fmt: skip
    return path


def test_the_selected_rows_are_the_nearest_to_rays_in_three_dimensions(workdir):
    for stage, scored, k in (("stage1", "scores", 4), ("stage2", "generated", 2)):
        table = read_table(workdir / f"{scored}.parquet")
        column, value = ("split", "train") if stage == "stage1" else ("collapsed", "")
        keep = np.array(table[column].to_pylist()) == value
        fit = keep.sum()
        keep &= table["likelihood"].to_numpy() >= -15
        keep &= table["configs.toy:vowels"].to_numpy() > 0.2
        assert 0 < keep.sum() < fit
        rewards = rewards_matrix(table, OBJECTIVES, scored)[keep]
        expected = select(rewards, PREFERENCES, k, min(k * len(PREFERENCES), len(rewards)))
        selected = read_table(workdir / "selection" / f"{stage}.parquet")
        rows = np.flatnonzero(keep)[np.asarray(expected.row_ids)]
        np.testing.assert_array_equal(selected["row_id"].to_numpy(), rows.ravel())


def test_the_hypervolume_is_that_of_points_in_three_dimensions(workdir):
    evaluation = json.loads((workdir / "evaluation" / "points.json").read_text())
    front = evaluation["fronts"]["stage2"]
    means = np.array([model["mean_rewards"] for model in front["models"]])
    assert means.shape == (4, 3)
    for frame in evaluation["frames"]:
        points = (means - frame["offset"]) / frame["scale"]
        expected = float(hypervolume(points, np.array(frame["reference"])))
        assert front["hypervolume"][frame["name"]] == pytest.approx(expected, rel=1e-6)


def test_the_likelihood_that_a_gate_asked_for_is_measured_of_every_model(workdir):
    evaluation = json.loads((workdir / "evaluation" / "points.json").read_text())
    assert evaluation["unrewarded"] == ["likelihood"]
    rows = read_table(workdir / "evaluation" / "scores.parquet").to_pylist()
    for family, front in evaluation["fronts"].items():
        for model in front["models"]:
            own = [
                row for row in rows if (row["family"], row["policy"]) == (family, model["label"])
            ]
            mean = np.mean([row["likelihood"] for row in own])
            assert model["unrewarded"]["likelihood"]["mean"] == pytest.approx(mean)
    report = (workdir / "report" / "report.html").read_text()
    assert "Beside the rewards" in report and "Not measured: relevance, " in report


def test_the_figure_has_a_panel_for_each_pair_and_the_report_a_column_for_each(workdir):
    height, width, _ = matplotlib.image.imread(workdir / "report" / "front.png").shape
    assert 1.3 < width / height < 2.2  # three panels by two, not one by two
    report = (workdir / "report" / "report.html").read_text()
    assert "0.20 / 0.30 / 0.50" in report
    assert all(objective in report for objective in OBJECTIVES)
    gates = report.partition("Rows that gates took")[2]
    assert gates.count("<td>likelihood&gt;=-15</td>") == 2  # for either stage
