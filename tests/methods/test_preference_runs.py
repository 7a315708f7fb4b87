"""Whole runs of methods on pairs: three objectives in one run directory, and eight devices."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_whole_runs import metrics
from toy_runs import CONFIG, run_toy

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.methods import modpo
from paretohqd_jax.policies import read_policies

pytestmark = pytest.mark.slow
OBJECTIVES = ["brief", "configs.toy:vowels", "configs.toy:variety"]
SHORT = (
    "--config.train.num_steps=8", "--config.train.held_out_loss=True",
    "--config.data.num_test_prompts=3", "--config.evaluate.max_new_tokens=4",
)  # fmt: skip
THREE = (
    f"--config.rewards.models={','.join(OBJECTIVES)}",
    "--config.preferences=1,0,0;0.2,0.3,0.5;0,0.5,0.5",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("three")
    run_toy(path, *SHORT, *THREE, method="modpo")
    return path


def test_a_model_moves_the_chosen_over_the_rejected_for_its_objective(workdir):
    pairs = read_table(workdir / "pairs.parquet")
    labels = np.stack([pairs[name].to_numpy() for name in OBJECTIVES])
    train = np.array(pairs["split"].to_pylist()) == "train"
    reference, models = (
        np.load(workdir / f"{name}_log_probs.npy") for name in ("reference", "dpo")
    )
    assert models.shape == (3, train.sum() + 64, 2)
    margins = np.diff(reference - models, axis=-1)[:, : train.sum(), 0]
    for own, label in zip(margins, labels[:, train], strict=True):
        assert np.mean(label * own) > 0
        assert np.mean(label * own > 0) > 0.55 * np.mean(label != 0)


def test_modpo_serves_corners_by_dpo_and_the_rest_by_models_of_their_own(workdir):
    corner, inner, edge = read_policies(workdir / "policies.json").served
    assert corner.adapters == ("dpo/w1.00_0.00_0.00",)
    assert [inner.adapters, edge.adapters] == [(f"modpo/{each.label}",) for each in (inner, edge)]


def test_training_tells_how_it_does_on_held_out_pairs(workdir):
    found = metrics(workdir, "dpo")
    for name in read_policies(workdir / "policies.json").stacks["dpo"]:
        start, end = (found[f"held_out_loss/{name}", step] for step in (0, 8))
        assert abs(start - np.log(2)) < 1e-3 and end != start
        assert 0 <= found[f"held_out_accuracy/{name}", 8] <= 1
    report = (workdir / "report" / "report.html").read_text("utf-8")
    table = report.partition("<th>on held-out rows</th>")[2].partition("</table>")[0]
    assert table.count("<tr>") == 3 + 2


@pytest.mark.parametrize("primary", OBJECTIVES)
def test_any_objective_may_come_first_with_margins_of_reward_models(workdir, primary):
    for stage in ("margins", "modpo", "policies"):
        run_toy(
            workdir, *SHORT, *THREE, f"--stage={stage}", "--config.modpo.margins=rewards",
            f"--config.modpo.primary={primary}", method="modpo",
        )  # fmt: skip
    [_, inner, edge] = read_policies(workdir / "policies.json").served
    assert inner.adapters == (f"modpo/{inner.label}",)
    if primary == "brief":  # has no weight there: DPO's models answer together
        assert edge.combine == "logits" and edge.weights == (0, 0.5, 0.5)
    else:
        assert edge.adapters == (f"modpo/{edge.label}",)
    rewards = read_table(workdir / "scores.parquet")
    pairs = read_table(workdir / "pairs.parquet")
    margins = np.load(workdir / "margins.npy")
    for name, paid in zip(OBJECTIVES, margins, strict=True):
        by_row = rewards[name].to_numpy()
        rows = [pairs[f"{place}_row"].to_numpy()[0] for place in ("chosen", "rejected")]
        assert paid[0] == pytest.approx(by_row[rows[0]] - by_row[rows[1]], rel=1e-6)


@pytest.mark.parametrize("method", ["mod", "dpo_lw", "raco", "smooth_tchebycheff"])
def test_methods_scale_to_three_objectives(workdir, method, capsys):
    run_toy(workdir, *SHORT, *THREE, method=method)
    if method == "mod":
        assert " dpo: up to date, skipped" in capsys.readouterr().err
    [front] = json.loads((workdir / "evaluation/points.json").read_text())["fronts"].values()
    assert len(front["models"]) == 3
    assert all(len(model["mean_rewards"]) == 3 for model in front["models"])
    if method != "mod":
        told = metrics(workdir, method)
        for label in read_policies(workdir / "policies.json").stacks[method]:
            assert told[f"held_out_accuracy/{label}", 8] > 0.6


def test_eight_devices_train_what_one_does(tmp_path):
    """MODPO, upon DPO models, whose log-probabilities are computed by the mesh, too; then RACO."""
    mesh = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    stages = [("modpo", stage) for stage in modpo.STEPS[: modpo.STEPS.index("modpo") + 1]]
    for method, stage in [*stages, ("raco", "raco")]:
        run_toy(tmp_path / "one", *SHORT, f"--stage={stage}", method=method)
        options = [f"--config={CONFIG}:{method}", f"--workdir={tmp_path / 'eight'}"]
        console(["paretohqd", *options, *SHORT, *mesh, f"--stage={stage}"])
    for name in ("reference_log_probs.npy", "dpo_log_probs.npy", "margins.npy"):
        one, eight = (np.load(tmp_path / devices / name) for devices in ("one", "eight"))
        np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-4)
    for stack in ("dpo", "modpo", "raco"):
        one, eight = (metrics(tmp_path / devices, stack) for devices in ("one", "eight"))
        told = [key for key in one if key[0].startswith(("loss/", "held_out_loss/"))]
        told += [key for key in one if key[0].startswith("held_out_accuracy/") and key[1]]
        assert told and one.keys() == eight.keys()
        np.testing.assert_allclose(
            [eight[key] for key in told], [one[key] for key in told], rtol=0, atol=2e-4
        )
