"""Methods that learn from preference pairs, on a toy whose pairs bring their labels along."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.toy import get_config, rows
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.manifest import read_manifest
from paretohqd_jax.methods import modpo
from paretohqd_jax.policies import read_policies
from paretohqd_jax.steps.plan import Plan
from paretohqd_jax.steps.report import losses_of
from paretohqd_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
VOWELS = "configs.toy:vowels"
OBJECTIVES = ["brief", VOWELS]
ELEVEN = tuple(f"objective{number}=brief" for number in range(11))
SHORT = (
    "--config.train.num_steps=4", "--config.evaluate.max_new_tokens=4",
    "--config.data.num_test_prompts=3", "--config.pairs.labels=data", "--config.pairs.per_prompt=3",
    "--config.train.num_microbatches=4",  # parts of a pair, of which some have no label
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Every two following responses of the toy as a pair; of every third, nobody knows the vowels.

    A last pair is too long, and one has two equal responses.
    """
    toy = rows()
    pairs = []
    for number, (first, second) in enumerate(zip(toy[::2], toy[1::2], strict=True)):
        words = [len(row["response"].split()) for row in (first, second)]
        vowels = [sum(c in "aeiou" for c in row["response"]) for row in (first, second)]
        pair = {"prompt": first["prompt"], "chosen": first["response"],
                "rejected": second["response"],
                "brief": int(np.sign(words[1] - words[0]))}  # fmt: skip
        if number % 3:
            pair[VOWELS] = int(np.sign(vowels[0] - vowels[1]))
        pairs.append(pair)
    pairs.append(pairs[0] | {"rejected": pairs[0]["chosen"]})
    pairs.append(pairs[0] | {"rejected": "la " * 99})
    path = tmp_path_factory.mktemp("source") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, pairs)))
    return path


def run_toy(workdir, source, method, *options):
    config = f"--config={ROOT / 'configs/toy.py'}:{method}"
    console(
        ["paretohqd", config, f"--workdir={workdir}", f"--config.data.source={source}", *SHORT,
         *options]
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, source):
    path = tmp_path_factory.mktemp("dpo")
    run_toy(path, source, "dpo", "--config.train.held_out_loss=True")
    return path


def test_pairs_are_those_of_the_data_with_counts(workdir):
    table = read_table(workdir / "pairs.parquet")
    counts = json.loads(table.schema.metadata[b"pairs"])
    train = np.array(table["split"].to_pylist()) == "train"
    assert counts["num_pairs"] == train.sum() == 57 * 3  # of 4 pairs of a prompt
    labels = np.stack([table[name].to_numpy() for name in OBJECTIVES], axis=1)[train]
    for name, column in zip(OBJECTIVES, labels.T, strict=True):
        found = counts["objectives"][name]
        assert found["pairs"] == (column != 0).sum()
        assert found["ties"] == (column == 0).sum()
        assert found["conflicts"] == (labels[:, 0] * labels[:, 1] < 0).sum() > 10
    assert len(set(table["prompt"].filter(~train).to_pylist())) == 3
    report = (workdir / "report/report.html").read_text("utf-8")
    assert f"Of {counts['num_pairs']} pairs of responses that are trained on." in report
    assert not (workdir / "scores.parquet").exists()  # no reward model read the data
    assert read_table(workdir / "reference.parquet").num_rows == 2 * train.sum()


def test_there_is_a_model_for_each_objective(workdir):
    run = read_policies(workdir / "policies.json")
    assert [policy.preference for policy in run.served] == [(1.0, 0.0), (0.0, 1.0)]
    assert run.stacks == {"dpo": ["w1.00_0.00", "w0.00_1.00"]}
    assert (workdir / "adapters/w1.00_0.00/adapter_model.safetensors").exists()
    steps = read_manifest(workdir)
    assert steps["dpo"]["cost"]["optimizer_steps"] == 8
    reference = np.load(workdir / "reference_log_probs.npy")
    assert reference.shape == (1, 171 + 12, 2) and reference.max() < 0  # 12 are held out
    losses = losses_of(read_metrics(workdir / "logs/dpo"))
    # At first a model is its own reference: its margins, by another program, are 0.
    np.testing.assert_allclose(losses[:, 0], np.log(2), rtol=1e-3)
    assert losses.shape == (2, 4) and (losses[:, -1] < np.log(2)).all()


def test_log_and_report_tell_how_models_do_on_held_out_pairs(workdir):
    found = read_metrics(workdir / "logs/dpo")
    report = (workdir / "report/report.html").read_text("utf-8")
    table = report.partition("<th>on held-out rows</th>")[2].partition("</table>")[0]
    for name in ("w1.00_0.00", "w0.00_1.00"):
        losses, accuracies = (found[f"held_out_{what}/{name}"] for what in ("loss", "accuracy"))
        assert [*losses] == [*accuracies] == [0, 4]  # at the start and at the end
        np.testing.assert_allclose(losses[0], np.log(2), rtol=1e-3)
        assert losses[4] != losses[0] and 0 < accuracies[4] <= 1
        [row] = [row for row in table.split("<tr>") if name in row]
        assert f"{losses[4]:.3f}</td>" in row and f"{100 * accuracies[4]:.1f}\u202f%" in row


def test_soups_and_decoding_find_the_models_that_dpo_has_left(workdir, source, capsys):
    for method, combine in (("dpo_soup", "update"), ("mod", "logits")):
        other = [] if method == "dpo_soup" else ["--config.mod.divergence=alpha=0.5"]
        run_toy(workdir, source, method, "--stage=policies", *other)
        assert " dpo: up to date, skipped" in capsys.readouterr().err
        [vowels, both, brief] = read_policies(workdir / "policies.json").served
        assert both.adapters == ("dpo/w1.00_0.00", "dpo/w0.00_1.00")
        assert (both.weights, both.combine) == ((0.5, 0.5), combine)
        assert [vowels.adapters, brief.adapters] == [("dpo/w0.00_1.00",), ("dpo/w1.00_0.00",)]
        assert vowels.combine == "update"
    assert (both.divergence, vowels.divergence) == ("alpha=0.5", "reverse_kl")


@pytest.mark.parametrize("primary", ["", "brief"])
def test_modpo_trains_what_dpo_cannot_serve(tmp_path, primary):
    """Without weight on the first objective the margins' own policy is the optimum."""
    config, plan = get_config("modpo"), Plan(tmp_path)
    config.rewards.models = (*OBJECTIVES, "configs.toy:variety")
    config.preferences = "1,0,0;0.2,0.3,0.5;0,0.5,0.5"
    config.modpo.primary = primary
    modpo.align(config, plan)
    steps = {step.name: step.options for step in plan.steps}
    corner, inner, edge = steps["policies"]["families"]["modpo"]
    assert corner["adapters"] == ("dpo/w1.00_0.00_0.00",)
    assert inner["adapters"] == ("modpo/w0.20_0.30_0.50",)
    if primary:
        assert steps["modpo"]["first"] == [0] and edge["combine"] == "logits"
        assert edge["adapters"] == ("dpo/w0.00_1.00_0.00", "dpo/w0.00_0.00_1.00")
        assert edge["weights"] == (0.5, 0.5)
    else:
        assert steps["modpo"]["first"] == [2, 1] and edge["adapters"] == ("modpo/w0.00_0.50_0.50",)


def test_policies_of_modpo_have_labels_of_their_own(tmp_path):
    """Preferences that two decimals do not tell apart, of which one is served by DPO's model."""
    config, plan = get_config("modpo"), Plan(tmp_path)
    config.preferences = "0,1;0.001,0.999;0.002,0.998"
    modpo.align(config, plan)
    [policies] = [step.options for step in plan.steps if step.name == "policies"]
    labels = [policy["label"] for policy in policies["families"]["modpo"]]
    assert labels == ["w0.00_1.00_0", "w0.00_1.00_1", "w0.00_1.00_2"]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dpo", ["data.columns=configs.toy:vowels=brief"], "pairs.jsonl: no column 'brief'"),
        ("dpo", ["rewards.models=('kind=brief','configs.toy:vowels')"], "no column 'kind'"),
        ("dpo", ["pairs.conflict=2"], "config.pairs.conflict=2.0 is not valid; use -1"),
        ("dpo", ["pairs.margin=0.5"], "config.pairs.margin=0.5 is not valid; use 0 with given la"),
        ("dpo", ["data.scores=brief=brief"], "config.data.scores='brief=brief' is not valid"),
        ("dpo", ["dpo.loss=ipo", "dpo.label_smoothing=0.1"], "label_smoothing=0.1 is not valid"),
        ("dpo_lw", ["preferences=0.5,0.6"], "preferences"),
        ("raco", ["raco.conflict=1"], "config.raco.conflict=1.0 is not valid; use in [0, 1)"),
        ("raco", [f"rewards.models={ELEVEN}"], "is not valid; use up to 10 with config.method='ra"),
        ("mod", ["mod.divergence=kl"], "config.mod.divergence='kl' is not valid; use reverse_kl, "),
        ("mod", ["generate.engine=external"], "engine='external' is not valid; use 'jax': no serv"),
        ("modpo", ["modpo.margins=rewards"], "config.modpo.margins='rewards' is not valid"),
        ("modpo", ["modpo.primary=kind"], "config.modpo.primary='kind' is not valid; use one of"),
        ("modpo", ["preferences=2"], "MODPO trains models of several objectives, and there is"),
    ],
)
def test_what_does_not_fit_is_named(source, tmp_path, capsys, method, options, message):
    with pytest.raises(SystemExit):
        run_toy(tmp_path, source, method, *(f"--config.{option}" for option in options))
    assert message in capsys.readouterr().err
