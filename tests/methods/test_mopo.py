"""MOPO from the command line."""

from __future__ import annotations

import numpy as np
import pytest
from toy_runs import run_toy

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.policies import read_policies
from paretohqd_jax.steps.report import losses_of, trajectories_of
from paretohqd_jax.training.metrics import read_metrics

VOWELS = "configs.toy:vowels"
LABELS = [
    "brief,beta=0.9", "brief,beta=0.99", "configs.toy-vowels,beta=0.9",
    "configs.toy-vowels,beta=0.99",
]  # fmt: skip
SHORT = (
    "--config.train.num_steps=4", "--config.mopo.refresh_every=2", "--config.mopo.levels=0.9;0.99",
    "--config.mopo.thresholds=adaptive", "--config.evaluate.max_new_tokens=4",
    "--config.data.num_test_prompts=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("mopo")
    run_toy(path, *SHORT, method="mopo")
    return path


def test_one_stack_has_a_model_for_each_primary_objective_and_level(workdir):
    run = read_policies(workdir / "policies.json")
    assert run.stacks == {"mopo": LABELS}
    assert [policy.label for policy in run.served] == LABELS
    assert {policy.preference for policy in run.served} == {None}
    assert (workdir / "adapters/brief,beta=0.9/adapter_model.safetensors").exists()
    wins = read_table(workdir / "win_rates.parquet")
    for name in ("brief", VOWELS):
        np.testing.assert_allclose(np.mean(wins[name]), 0.5, atol=1e-6)
    assert losses_of(read_metrics(workdir / "logs/mopo")).shape == (4, 4)


def test_what_the_constraints_did_is_kept_and_shown(workdir):
    told = trajectories_of(read_metrics(workdir / "logs/mopo"), LABELS)
    thresholds = told[f"threshold_{VOWELS}"]
    # At step 2 they become the level times what the policy of step 0, the data, has.
    np.testing.assert_allclose(thresholds[:2, 2], [0.45, 0.495], rtol=1e-3)
    assert np.isnan(thresholds[2:]).all()  # there it is the primary objective
    brief = told["win_rate_brief"]
    assert brief[:2].min() > 0.8 and brief[2:].max() < 0.65
    assert (told["sample_size"] > 20).all() and (told["kl"] > 0).all()
    report = (workdir / "report/report.html").read_text("utf-8")
    assert "<h2>Constraints</h2>" in report and "brief,beta=0.99" in report


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mopo.primary=kind", "config.mopo.primary='kind' is not valid; use some of brief, "),
        ("mopo.levels=0.9;often", "config.mopo.levels='0.9;often': 'often' is not valid; write"),
        ("mopo.levels=1;1", "config.mopo.levels='1;1' is not valid; use different ones"),
        ("mopo.epsilon=0", "config.mopo.epsilon=0.0 is not valid; use above 0"),
        ("mopo.tau=0", "config.mopo.tau=0.0 is not valid; use above 0"),
        ("mopo.refresh_every=0", "config.mopo.refresh_every=0 is not valid; use at least 1"),
        ("rewards.models=('brief',)", "is not valid; use two or more of different names"),
        ("pairs.conflict=0.5", "config.pairs.conflict=0.5 is not valid; use -1 without"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        run_toy(tmp_path, f"--config.{option}", method="mopo")
    assert message in capsys.readouterr().err
