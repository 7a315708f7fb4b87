"""MORLHF from the command line: it learns what is asked for, and goes on where it was cut off."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from orbax.checkpoint import PyTreeCheckpointer
from toy_runs import CONFIG, run_toy

from configs.toy import get_config
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.distributed import Preempted
from paretohqd_jax.main import console
from paretohqd_jax.manifest import read_manifest
from paretohqd_jax.methods import morlhf
from paretohqd_jax.policies import read_policies
from paretohqd_jax.rewards.scoring import SCORERS
from paretohqd_jax.sampling import groups
from paretohqd_jax.steps import reinforcement as steps
from paretohqd_jax.steps.plan import Plan
from paretohqd_jax.steps.report import rewards_of
from paretohqd_jax.training import reinforcement as training
from paretohqd_jax.training.metrics import read_metrics

VOWELS = "configs.toy:vowels"
NAMES = ["w0.00_1.00", "w0.50_0.50", "w1.00_0.00"]
NUM_UPDATES, NUM_ANSWERS = 16, 3 * 6 * 4


@pytest.fixture(scope="module")
def compilations():
    """How many programs were compiled before each update of the run."""
    return []


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, compilations):
    path, count = tmp_path_factory.mktemp("morlhf"), [0]

    def note(event, *_, **__):
        count[0] += event == "/jax/core/compile/backend_compile_duration"

    def batch_rows(*arguments):
        compilations.append(count[0])
        return steps_batch_rows(*arguments)

    steps_batch_rows = steps.batch_rows
    jax.monitoring.register_event_duration_secs_listener(note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "batch_rows", batch_rows)
        run_toy(path, method="morlhf")
    jax.monitoring.unregister_event_duration_listener(note)
    return path


def means(workdir, metric):
    """The metric of each adapter over the first four updates and over the last four, `[2]` each."""
    logged = read_metrics(workdir / "logs/morlhf")
    curves = [[value for _, value in sorted(logged[f"{metric}/{name}"].items())] for name in NAMES]
    return np.array([[np.mean(curve[:4]), np.mean(curve[-4:])] for curve in curves])


def test_rewards_rise_for_the_objective_that_is_asked_for(workdir):
    vowels, brief = means(workdir, f"reward/{VOWELS}"), means(workdir, "reward/brief")
    assert vowels[0, 1] > vowels[0, 0] + 0.1  # from 0.04 of the characters
    assert vowels[0, 1] > vowels[2, 1] + 0.1
    assert brief[2, 1] > brief[0, 1]
    weighted = means(workdir, "weighted_reward")
    assert (weighted[:, 1] > weighted[:, 0] + 0.1).all()


def test_a_fresh_policy_is_the_base_model_and_a_trained_one_is_not(workdir):
    kl = {name: read_metrics(workdir / "logs/morlhf")[f"kl/{name}"] for name in NAMES}
    assert all(values[0] == 0 and values[NUM_UPDATES - 1] > 0.05 for values in kl.values())


def test_all_answers_are_kept_with_their_rewards(workdir):
    table = read_table(workdir / "morlhf/answers/000005.parquet")
    assert table.num_rows == NUM_ANSWERS
    assert table["policy"].to_pylist() == [name for name in NAMES for _ in range(24)]
    prompts = np.array(table["prompt"].to_pylist()).reshape(3, 6, 4)
    assert (prompts == prompts[:1, :, :1]).all() and len(set(prompts[0, :, 0])) == 6
    for row in table.to_pylist():
        vowels = sum(c in "aeiou" for c in row["response"]) / max(len(row["response"]), 1)
        assert row[VOWELS] == pytest.approx(vowels, abs=1e-6)
    logged = read_metrics(workdir / "logs/morlhf")
    by_adapter = table[VOWELS].to_numpy().reshape(3, -1).mean(axis=1)
    found = rewards_of(logged)
    assert [*found] == ["brief", VOWELS] and found["brief"].shape == (3, NUM_UPDATES)
    np.testing.assert_allclose(found[VOWELS][:, 5], by_adapter, rtol=1e-5)
    cost = read_manifest(workdir)["morlhf"]["cost"]
    assert cost["optimizer_steps"] == 3 * 2 * NUM_UPDATES
    assert NUM_ANSWERS * NUM_UPDATES < cost["tokens_generated"] <= 24 * NUM_ANSWERS * NUM_UPDATES


def test_programs_are_compiled_in_the_first_updates_alone(compilations, workdir):
    assert len(compilations) == NUM_UPDATES
    assert compilations[0] < compilations[1] and compilations[2] == compilations[-1]


def test_its_policies_are_measured_and_reported(workdir):
    run = read_policies(workdir / "policies.json")
    assert [policy.adapters for policy in run.served] == [(f"morlhf/{name}",) for name in NAMES]
    points = json.loads((workdir / "evaluation/points.json").read_text())
    assert len(points["fronts"]["morlhf"]["models"]) == 3
    report = (workdir / "report/report.html").read_text("utf-8")
    assert "MORLHF, policy gradients by groups of answers · report of a run" in report
    assert report.count("Mean reward of every model's answers over the updates") == 2


class Killed(BaseException):
    pass


def after(number, function, error):
    """The function, which raises the error when it has been called so often."""
    calls = iter(range(number))

    def called(*arguments, **options):
        if next(calls, None) is None:
            raise error
        return function(*arguments, **options)

    return called


def cut_off(workdir, error, module, name, number, *options):
    """A run in which a function raises the error when it has been called so often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, after(number, getattr(module, name), error))
        with pytest.raises(Killed if isinstance(error, Killed) else SystemExit):
            run_toy(workdir, *options, method="morlhf")


def test_a_run_that_was_preempted_goes_on_with_the_same_answers(workdir, tmp_path):
    partial = tmp_path / "partial/morlhf"
    cut_off(tmp_path, Preempted(), steps, "sample_groups", 2)
    assert (partial / "morlhf/2").is_dir()  # though checkpoints are due every five updates
    cut_off(tmp_path, Killed(), steps, "with_rewards", 1)
    for update in range(3):
        name = f"morlhf/answers/{update:06d}.parquet"
        assert (partial / name).read_bytes() == (workdir / name).read_bytes()
    unscored = read_table(partial / "scratch/000003.parquet")
    scored = read_table(workdir / "morlhf/answers/000003.parquet")
    assert unscored.equals(scored.select(unscored.column_names))


SHORT = ("--config.morlhf.num_updates=4", "--config.train.checkpoint_every=3",
         "--config.preferences=0.8,0.2;0.2,0.8")  # fmt: skip


@pytest.mark.slow
def test_a_run_that_was_cut_off_anywhere_ends_with_the_same_bytes(tmp_path):
    for which in ("whole", "cut"):
        run_toy(tmp_path / which, *SHORT, "--stage=score", method="morlhf")
    options = (*SHORT, "--stage=morlhf")
    run_toy(tmp_path / "whole", *options, method="morlhf")
    partial = tmp_path / "cut/partial/morlhf"
    cut_off(tmp_path / "cut", Killed(), groups, "respond", 1, *options)  # in sampling
    assert [path.name for path in (partial / "morlhf/answers").iterdir()] == ["000000.parquet"]
    cut_off(tmp_path / "cut", Killed(), steps, "with_rewards", 0, *options)  # in scoring
    assert (partial / "scratch/000001.parquet").exists()
    cut_off(tmp_path / "cut", Preempted(), groups, "check_preemption", 0, *options)
    assert (partial / "morlhf/2").is_dir()
    cut_off(tmp_path / "cut", Killed(), training, "check_finite", 0, *options)  # in optimisation
    run_toy(tmp_path / "cut", *options, method="morlhf")
    for update in range(4):
        name = f"morlhf/answers/{update:06d}.parquet"
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    both = [
        PyTreeCheckpointer().restore(tmp_path / which / "morlhf/4/state")
        for which in ("cut", "whole")
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.slow
def test_eight_devices_answer_and_learn_as_one_does(tmp_path):
    eight = [
        f"--config={CONFIG}:morlhf", f"--workdir={tmp_path / 'eight'}",
        "--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2",
    ]  # fmt: skip
    for stage in ("score", "morlhf"):
        run_toy(tmp_path / "one", *SHORT, f"--stage={stage}", method="morlhf")
        console(["paretohqd", *eight, *SHORT, f"--stage={stage}"])
    answers = "morlhf/answers/000000.parquet"
    one, eight = (read_table(tmp_path / which / answers) for which in ("one", "eight"))
    assert eight["token_ids"].equals(one["token_ids"])
    for name in ("brief", VOWELS):
        np.testing.assert_allclose(eight[name].to_numpy(), one[name].to_numpy())
    one, eight = (read_metrics(tmp_path / which / "logs/morlhf") for which in ("one", "eight"))
    for name in ("policy_loss", "grad_norm", "norm"):
        for adapter in ("w0.80_0.20", "w0.20_0.80"):
            expected = one[f"{name}/{adapter}"][0]
            assert eight[f"{name}/{adapter}"][0] == pytest.approx(expected, rel=1e-3, abs=1e-5)


# The loss is the weighted divergence less the mean advantage, of which rounding is more than that.
ONE_STEP_HARDLY_HELD = ("--config.train.batch_size=24", "--config.morlhf.kl=1e-9")


def test_a_reward_that_never_differs_and_a_divergence_that_explodes_are_told(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(SCORERS, "same", lambda prompts, responses: np.ones(len(responses)))
    with pytest.raises(SystemExit):
        run_toy(
            tmp_path, *SHORT, f"--config.rewards.models=('same','{VOWELS}')",
            "--config.morlhf.max_kl=1e-4", *ONE_STEP_HARDLY_HELD, method="morlhf",
        )  # fmt: skip
    told = capsys.readouterr().err
    assert told.count("same gives all 4 answers of each group the same reward") == 1
    assert "the KL divergence of adapter w0.80_0.20, w0.20_0.80 from the base model is" in told
    assert "above config.morlhf.max_kl=0.0001; raise config.morlhf.kl or lower" in told
    assert "or raise config.morlhf.max_kl to go on" in told
    logged = read_metrics(tmp_path / "logs/morlhf")
    assert logged["equal_groups/same/w0.80_0.20"] == {0: 1.0}
    assert logged["kl/w0.80_0.20"] == {0: 0.0}


def test_a_run_that_a_divergence_stopped_goes_on_with_a_larger_limit(tmp_path):
    def trained(**options):
        config, plan = get_config("morlhf"), Plan(tmp_path)
        config.morlhf.update(options)
        morlhf.align(config, plan)
        return next(step.options for step in plan.steps if step.name == "morlhf")

    assert trained(max_kl=1.0) == trained(max_kl=9.0) != trained(max_kl=9.0, kl=0.3)


def test_that_an_engine_answers_in_the_evaluation_alone_is_told(tmp_path, caplog):
    config = get_config("morlhf")
    for engine in ("jax", "external"):
        caplog.clear()
        config.generate.engine = engine
        morlhf.align(config, Plan(tmp_path))
        told = "morlhf: the answers that are learnt from are decoded here" in caplog.text
        assert told == (engine == "external")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.batch_size=10", "a divisor of morlhf.num_prompts * morlhf.num_answers = 24"),
        ("morlhf.advantage=ppo", "config.morlhf.advantage='ppo' is not valid; use one of grpo"),
        ("morlhf.num_answers=1", "config.morlhf.num_answers=1 is not valid; use at least 2"),
        ("generate.temperature=0", "config.generate.temperature=0.0 is not valid; use above 0"),
        ("morlhf.max_prompt_tokens=3", "none of 54 training prompts has config.morlhf.max_prompt_"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        run_toy(tmp_path, f"--config.{option}", method="morlhf")
    assert message in capsys.readouterr().err
