"""SIPO from the command line, on a toy that reviews itself in gibberish."""

from __future__ import annotations

import json
import os
import shutil

import jax
import numpy as np
import pytest
from test_resume import ROOT, finish, kill_at, start_run
from toy_runs import run_toy

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.manifest import read_manifest, write_manifest
from paretohqd_jax.methods.sipo import STEPS
from paretohqd_jax.pipeline import Run
from paretohqd_jax.policies import read_policies
from paretohqd_jax.steps.report import losses_of
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.metrics import read_metrics

OBJECTIVES = ["brief", "configs.toy:vowels"]
OWN_STEPS = STEPS[STEPS.index("draft") : STEPS.index("sipo") + 1]
COMPARED = ("improvement.parquet", "evaluation/responses.parquet", "evaluation/points.json")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "review.txt").write_text("{prompt}|{response}|")
    (folder / "rewrite.txt").write_text("{prompt}|{response}|{review}|")
    return (
        "--config.sipo.refinement=review", "--config.sipo.review_tokens=4",
        f"--config.sipo.review_prompt={folder}/review.txt",
        f"--config.sipo.rewrite_prompt={folder}/rewrite.txt",
        "--config.sipo.average=factors", "--config.preferences=2",
        "--config.evaluate.max_new_tokens=4", "--config.data.num_test_prompts=3",
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, options):
    path = tmp_path_factory.mktemp("sipo")
    run_toy(path, *options, method="sipo")
    return path


def stack(workdir, name):
    meta = json.loads(next((workdir / name).glob("*/meta/metadata")).read_text())
    return load_adapters(workdir / name, meta)


def test_answers_better_than_both_of_a_pair_in_conflict_are_learnt_from(workdir):
    table = read_table(workdir / "improvement.parquet")
    facts = json.loads(table.schema.metadata[b"improvement"])
    assert {"original", "taken", "draft", "rewrite", "chosen"} <= {
        *table["verdict"].to_pylist(), *table["source"].to_pylist()
    }  # fmt: skip
    rewards = [name for name in table.column_names if name.startswith("implicit ")]
    labels = ["w0.20_0.80", "w0.40_0.60", "w0.60_0.40", "w0.80_0.20"]
    assert rewards == [f"implicit {name}" for name in OBJECTIVES + labels]
    values = {
        (row["pair"], row["source"] if row["verdict"] == "original" else row["verdict"]): np.array(
            [row[name] for name in rewards]
        )
        for row in table.to_pylist()
    }
    taken = [pair for pair, what in values if what == "taken"]
    assert len(taken) == facts["improved"] > 0
    for pair in taken:
        for place in ("chosen", "rejected"):
            assert (values[pair, "taken"] > values[pair, place]).all()
    report = (workdir / "report/report.html").read_text("utf-8")
    assert f"{facts['improved']} have an answer that is better than both" in report
    assert "its model’s implicit reward is right in" in report
    assert "Judged were {draft} drafts and {rewrite} rewrites".format(**facts["sources"]) in report
    assert '<th class="n">reward brief</th>' in report
    agreement = json.loads((workdir / "improvement/agreement.json").read_text())
    assert agreement["brief"]["accuracy"] > 0.6 and agreement["brief"]["num_pairs"] > 10


def test_soups_that_judge_are_of_factors_as_in_the_authors_code(workdir):
    judges = read_manifest(workdir)["implicit_rewards"]["options"]["judges"]
    soups = [[f"soups/{judge['label']}"] for judge in judges[2:]]
    assert [judge["adapters"] for judge in judges] == [
        ["dpo/w1.00_0.00"], ["dpo/w0.00_1.00"], *soups
    ]  # fmt: skip
    models, soups = (stack(workdir, name)["layers"]["q_proj"]["a"] for name in ("dpo", "soups"))
    np.testing.assert_allclose(soups[0], 0.2 * models[0] + 0.8 * models[1], rtol=1e-6)


def test_models_are_aligned_again_on_top_of_those_that_stay(workdir):
    first, again = (stack(workdir, name)["layers"] for name in ("dpo", "sipo"))
    for target, factors in first.items():
        rank = factors["a"].shape[-1]
        np.testing.assert_array_equal(again[target]["a"][..., :rank], factors["a"])
        np.testing.assert_array_equal(again[target]["b"][..., :rank, :], factors["b"])
        assert np.abs(again[target]["b"][..., rank:, :]).max() > 0
    [start, *_, end] = losses_of(read_metrics(workdir / "logs/sipo")).T
    assert (end < start).all()
    policies = read_policies(workdir / "policies.json")
    assert list(policies.families) == ["mod", "sipo"]
    assert [policy.adapters for policy in policies.served] == [
        ("sipo/w0.00_1.00",), ("sipo/w1.00_0.00",)
    ]  # fmt: skip
    exported = json.loads((workdir / "adapters/w1.00_0.00/adapter_config.json").read_text())
    assert (exported["r"], exported["lora_alpha"]) == (8, 16.0)  # of a run with 4 and 8


class Killed(BaseException):
    """Ends a run before a step is recorded as done."""


@pytest.mark.slow
def test_a_run_that_ends_in_a_step_of_its_own_goes_on_to_the_same_bytes(
    workdir, options, tmp_path, monkeypatch
):
    """Of the steps that keep what they have done so far; all others in the slow test below."""
    again = shutil.copytree(workdir, tmp_path / "again")
    manifest = read_manifest(again)
    others = {name: record for name, record in manifest.items() if name not in OWN_STEPS}
    write_manifest(again, others)
    whole = Run._finish
    for step in ("draft", "implicit_rewards", "sipo"):

        def finish_or_end(self, name, *rest, last=step):
            if name == last:
                raise Killed
            whole(self, name, *rest)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Run, "_finish", finish_or_end)
            run_toy(again, *options, method="sipo")
    run_toy(again, *options, "--stage=sipo", method="sipo")
    assert not (again / "partial/sipo").exists()
    for name in ("improvement.parquet", "improvement/candidates.parquet"):
        assert (again / name).read_bytes() == (workdir / name).read_bytes()
    same = jax.tree.map(np.array_equal, stack(again, "sipo"), stack(workdir, "sipo"))
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_a_run_killed_in_every_step_ends_with_the_same_bytes(options, tmp_path):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    toy = (f"--config={ROOT / 'configs/toy.py'}:sipo", *options)
    for name in ("warm", "whole"):
        finish(start_run(tmp_path / name, toy, environment))
    manifest = read_manifest(tmp_path / "whole")
    hits = {
        step: kill_at(
            start_run(tmp_path / "killed", toy, environment), step, manifest[step]["seconds"] / 2
        )
        for step in STEPS
        if step in manifest
    }
    assert all(hits.values()), hits
    finish(start_run(tmp_path / "killed", toy, environment))
    for name in COMPARED:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sipo.weights=", "config.sipo.weights='' is not valid; use 'inner', or at least one mi"),
        ("sipo.weights=0.5,0.6", "config.sipo.weights='0.5,0.6': preferences: row 0 is [0.5, 0.6]"),
        ("sipo.nll_weight=-1", "config.sipo.nll_weight=-1.0 is not valid; use 0 or more"),
        ("sipo.reviewer=2", "config.sipo.reviewer='2' is not valid; use the weights of one mixt"),
        ("lora.dropout=0.1", "config.lora.dropout=0.1 is not valid; use 0: it would fall on the "),
        ("generate.engine=external", "engine='external' is not valid; use 'jax'"),
        ("sipo.refinement=review", "even without the user's prompt more than the model's context"),
        (
            "pairs.conflict=0",
            "config.pairs.conflict=0.0 is not valid; use more than 0, or -1: SIPO",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_any_model_is_trained(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        run_toy(tmp_path, f"--config.{option}", method="sipo")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "dpo").exists()
