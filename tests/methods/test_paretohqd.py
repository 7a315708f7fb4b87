"""One toy run from the command line, and everything it should have left behind."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_runs import run_toy

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.methods.paretohqd import STEPS
from paretohqd_jax.pareto import preference_grid, representatives, select
from paretohqd_jax.policies import preference_labels, read_policies
from paretohqd_jax.training.checkpoints import load_adapters

OBJECTIVES = ("brief", "configs.toy:vowels")
PREFERENCES = preference_grid(4)
LABELS = preference_labels(PREFERENCES)
K, NUM_TEST_PROMPTS, NUM_MODELS = 12, 6, 9

META = {
    "model": "random:toy",
    "lora": {
        "rank": 4, "alpha": 8.0, "dropout": 0.05,
        "targets": ["q_proj", "v_proj", "o_proj", "down_proj"],
    },
    "adapters": LABELS,
}  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    run_toy(path)
    assert not list((path / "partial").iterdir())
    return path


def column(table, name):
    return np.array(table[name].to_pylist())


def rewards_of(table):
    return np.stack([column(table, name) for name in OBJECTIVES], axis=1)


def test_the_run_directory_is_what_the_guide_shows(workdir):
    done = json.loads((workdir / "manifest.json").read_text())["steps"]
    assert {*done} == {*STEPS} - {"reference"}  # the rows bring no scores along
    files = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    assert files >= {
        "config.json", "scores.parquet", "policies.json", "selection/stage1.parquet",
        "selection/stage2.parquet",
        "generated.parquet", "evaluation/responses.parquet", "evaluation/points.json",
        "report/front.png", "report/report.html", "adapters/w0.33_0.67/adapter_config.json",
        "adapters/w0.33_0.67/adapter_model.safetensors", "adapters/w0.33_0.67/README.md",
        "adapters/w0.33_0.67/chat_template.jinja",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "scored", "k"), [("stage1", "scores", K), ("stage2", "generated", K // 2)]
)
def test_each_stage_trains_on_the_rows_nearest_to_its_rays(workdir, stage, scored, k):
    table = read_table(workdir / f"{scored}.parquet")
    allowed = column(table, "split") == "train" if stage == "stage1" else column(
        table, "collapsed"
    ) == ""  # fmt: skip
    candidates = np.flatnonzero(allowed)
    assert 0 < candidates.size < table.num_rows
    expected = select(rewards_of(table)[candidates], PREFERENCES, k)
    selection = read_table(workdir / "selection" / f"{stage}.parquet")
    assert column(selection, "row_id").tolist() == candidates[expected.row_ids].ravel().tolist()
    assert column(selection, "preference_id").tolist() == np.repeat(range(4), k).tolist()
    facts = json.loads(selection.schema.metadata[b"selection"])
    assert facts["pool_size"] == (np.asarray(expected.ranks) >= 0).sum()


def test_held_out_prompts_are_seen_by_the_evaluation_alone(workdir):
    table = read_table(workdir / "scores.parquet")
    held_out = set(column(table, "prompt")[column(table, "split") == "test"])
    assert len(held_out) == NUM_TEST_PROMPTS
    answers = read_table(workdir / "evaluation/responses.parquet")
    assert set(column(answers, "prompt")) == held_out
    generated = read_table(workdir / "generated.parquet")
    assert not held_out & set(column(generated, "prompt"))
    assert set(column(generated, "policy")) == {LABELS[i] for i in representatives(PREFERENCES)}
    assert len(representatives(PREFERENCES)) == 3
    pairs = list(zip(column(generated, "prompt"), column(generated, "response"), strict=True))
    assert len(set(pairs)) == len(pairs)


def test_the_points_are_the_means_of_the_scored_answers(workdir):
    answers = read_table(workdir / "evaluation/scores.parquet")
    points = json.loads((workdir / "evaluation/points.json").read_text())
    fronts = (points["fronts"][stage]["models"] for stage in ("stage1", "stage2"))
    models = [points["base"], *itertools.chain(*fronts)]
    assert len(models) == NUM_MODELS and points["num_prompts"] == NUM_TEST_PROMPTS
    every = read_policies(workdir / "policies.json").every()
    for (family, policy), model in zip(every, models, strict=True):
        own = (column(answers, "family") == family) & (column(answers, "policy") == policy.label)
        rows = np.flatnonzero(own)
        assert (model["label"], rows.size) == (policy.label, NUM_TEST_PROMPTS)
        np.testing.assert_allclose(model["mean_rewards"], rewards_of(answers)[rows].mean(axis=0))
        collapsed = column(answers, "collapsed")[rows] != ""
        np.testing.assert_allclose(model["collapse"]["total"], collapsed.mean())


def test_the_models_are_steered(workdir):
    points = json.loads((workdir / "evaluation/points.json").read_text())
    stage2 = np.array([m["mean_rewards"] for m in points["fronts"]["stage2"]["models"]])
    assert stage2[0, 1] > stage2[-1, 1] and stage2[-1, 0] > stage2[0, 0]


def test_stage_2_goes_on_from_stage_1(workdir):
    stacks = (load_adapters(workdir / stage, META) for stage in ("stage1", "stage2"))
    one, two = (stack["layers"]["q_proj"]["a"] for stack in stacks)
    change, size = np.abs(two - one).mean(), np.abs(one).mean()
    assert 0 < change < size


def test_the_exported_adapters_are_those_of_stage_2(workdir):
    adapters = load_adapters(workdir / "stage2", META)
    for index, name in enumerate(LABELS):
        tensors = load_file(workdir / "adapters" / name / "adapter_model.safetensors")
        lora_a = tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"]
        np.testing.assert_array_equal(lora_a, adapters["layers"]["q_proj"]["a"][index, 1].T)


def test_a_changed_option_reruns_exactly_what_depends_on_it(workdir, capsys):
    def steps_run(*options):
        run_toy(workdir, *options)
        lines = capsys.readouterr().err.splitlines()
        return [line.split()[1].rstrip(":") for line in lines if ": started" in line]

    assert steps_run() == []
    # What changes no result reruns the report alone, which states the options.
    unchanged = (
        "--config.model.remat=dots",
        "--config.train.checkpoint_every=7",
        "--config.rewards.batch_size=50",
        "--config.generate.batch_size=5",
        "--config.evaluate.batch_size=5",
    )
    assert steps_run(*unchanged) == ["report"]
    changed = "--config.evaluate.temperature=0.9"
    assert steps_run(changed) == ["respond", "judge", "evaluate", "export", "report"]
    assert steps_run(changed, "--stage=select1") == []
    with pytest.raises(SystemExit):  # parts of a batch draw their own dropout
        run_toy(workdir, changed, "--config.train.num_microbatches=2", "--stage=generate")
    assert "needs step stage1, which is not up to date (num_micro" in capsys.readouterr().err


def test_a_mistake_costs_nothing_that_was_done(workdir, capsys):
    run_toy(workdir)
    before = (workdir / "config.json").read_bytes()
    for wrong in (
        "--config.rewards.models=('brief','nothing')",
        "--config.data.source=typo.parquet",
        "--config.preferences=0.9,0.3",
        "--config.lora.targets=('q',)",
        "--config.model.source=/no/model",
        "--config.select.k=4000",
    ):
        with pytest.raises(SystemExit):
            run_toy(workdir, wrong)
        assert (workdir / "selection/stage1.parquet").exists()
    capsys.readouterr()
    run_toy(workdir)
    assert ": started" not in capsys.readouterr().err.replace("report: started", "")
    assert (workdir / "config.json").read_bytes() == before


def test_adapters_of_another_run_are_refused(workdir, capsys, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    manifest = json.loads((other / "manifest.json").read_text())
    del manifest["steps"]["generate"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    [meta] = (other / "stage1").glob("40/meta/metadata")
    meta.write_text(meta.read_text().replace('"rank": 4', '"rank": 8'))
    with pytest.raises(SystemExit):
        run_toy(other, "--stage=generate")
    assert "made with lora=" in capsys.readouterr().err
    for file in (other / "stage1").glob("*/state/**/*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    meta.write_text(meta.read_text().replace('"rank": 8', '"rank": 4'))
    with pytest.raises(SystemExit):
        run_toy(other, "--stage=generate")
    assert "stage1: checkpoint 40 is damaged; delete this folder" in capsys.readouterr().err


def test_the_toy_selects_and_answers_what_it_always_did(workdir):
    """Of a package before policies and steps had rooms of their own; on any CPU."""
    golden = json.loads((Path(__file__).parent / "toy_run.json").read_text())
    for stage in ("stage1", "stage2"):
        selection = read_table(workdir / "selection" / f"{stage}.parquet")
        assert selection["row_id"].to_pylist() == golden["row_ids"][stage]
