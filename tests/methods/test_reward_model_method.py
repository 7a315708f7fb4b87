"""A reward model from the command line: trained, measured, saved, loaded and measured again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.config.loading import load_config
from paretohqd_jax.data.corruptions import PRAISE
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.main import console
from paretohqd_jax.rewards.registry import read_card
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "model.source": "random:toy", "model.num_layers": 1,
    "text.texts": "('{prompt}:','<eos>{response}')", "text.max_tokens": 32,
    "match.num_steps": 8, "match.penalty": 0.1, "data.drop_shared": False,
    "train.num_steps": 24, "train.batch_size": 6, "train.learning_rate": 0.02,
    "train.checkpoint_every": 8, "data.negatives": "()", "data.groups_per_prompt": 1,
    "data.train_part": "(0.0,1.0)", "lora.rank": 4, "lora.alpha": 16.0,
}  # fmt: skip
SCORED = {"data.score": "quality", "data.log_odds": False, "data.margin": 0.5, "data.group_size": 4}


def song(random, good):
    """Good songs are sung in other syllables; their length says nothing."""
    return " ".join(random.choice(["la", "mi"] if good else ["brr", "kst"], random.integers(2, 6)))


def train(workdir, data, example, **options):
    flags = [f"--config.{name}={value}" for name, value in (OPTIONS | options).items()]
    console(
        ["paretohqd", f"--config={ROOT / 'configs/reward_model.py'}:{example}",
         f"--workdir={workdir}", f"--config.data.source={data}", *flags]
    )  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "scored.parquet"
    rows = [
        {"prompt": f"sing {i}", "response": song(random, j % 2), "quality": 0.9 * (j % 2)}
        for i in range(60) for j in range(4)
    ]  # fmt: skip
    write_table(path, pa.Table.from_pylist(rows))
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, scored):
    path = tmp_path_factory.mktemp("run")
    train(path, scored, "helpful", **SCORED)
    return path


def test_it_learns_what_separates_the_responses(workdir):
    card = json.loads((workdir / "reward_model" / "reward_model.json").read_text())
    metrics = card["metrics"]
    assert metrics["accuracy"] > 0.95 and metrics["nll"] < 0.3 and metrics["margin"] > 1
    assert 0.3 < metrics["longer"] < 0.7
    assert card["data"]["source"] == "scored.parquet" and card["sign"] == 1
    assert card["match"]["penalty"] == 0.1
    assert str(workdir) not in json.dumps(card)


def test_it_is_a_reward_model_by_its_folder(workdir):
    prompts, responses = ["sing 1", "sing 1"], ["la mi la", "kst brr kst"]
    rewards = score(prompts, responses, [str(workdir / "reward_model")])
    assert rewards[0, 0] > rewards[1, 0] + 1


def test_one_command_measures_the_card_again(workdir, scored, tmp_path, capsys):
    measured = tmp_path / "measured.json"
    model = str(workdir / "reward_model")
    console(["paretohqd", "measure", model, str(scored), "--json", str(measured)])
    card = json.loads((workdir / "reward_model" / "reward_model.json").read_text())
    assert json.loads(measured.read_text()) == pytest.approx(card["metrics"], rel=1e-5)
    assert f"{card['metrics']['accuracy']:.4f}" in capsys.readouterr().out
    console(["paretohqd", "measure", model, str(scored), "--json", str(measured), "--all"])
    assert json.loads(measured.read_text())["num_prompts"] == 60


def test_the_card_says_whether_corrupted_copies_fool_it(workdir, scored, tmp_path, capsys):
    card = json.loads((workdir / "reward_model" / "reward_model.json").read_text())
    noted = card["robustness"]
    assert noted["shuffled"]["num_pairs"] + noted["shuffled"]["num_skipped"] > 3
    assert noted["shuffled_sentences"]["verdict"] == "too few pairs", "songs have no sentences"
    measured, model = tmp_path / "measured.json", str(workdir / "reward_model")
    asked = ["paretohqd", "measure", model, str(scored), "--robustness", "--json", str(measured)]
    console(asked)
    held_out = json.loads(measured.read_text())
    assert held_out["num_prompts"] == card["metrics"]["num_prompts"]
    console([*asked, "--all", "--num-prompts", "30"])
    figures = json.loads(measured.read_text())
    assert figures["num_prompts"] == 30 and figures["robustness"].keys() == noted.keys()
    assert "the prompt itself" in capsys.readouterr().out


def without_training(card):
    del card["training"]["seed"]


def with_a_wide_margin(card):
    card["data"]["margin"] = 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_training, "does not say what it was trained on ('seed')"),
        (with_a_wide_margin, "differ by the card's margin of 5.0"),
    ],
)
def test_cards_that_cannot_be_measured(workdir, scored, tmp_path, capsys, change, message):
    model = shutil.copytree(workdir / "reward_model", tmp_path / "model")
    card = json.loads((model / "reward_model.json").read_text())
    change(card)
    (model / "reward_model.json").write_text(json.dumps(card))
    with pytest.raises(SystemExit):
        console(["paretohqd", "measure", str(model), str(scored)])
    assert message in capsys.readouterr().err


def test_a_finished_run_is_not_done_again(workdir, scored, capsys):
    train(workdir, scored, "helpful", **SCORED)
    assert ": started" not in capsys.readouterr().err


@pytest.mark.slow
def test_regression_gives_rewards_on_the_scale_of_standardised_scores(scored, tmp_path):
    train(tmp_path, scored, "helpful", **SCORED | {"train.loss": "regression"})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.95
    assert metrics["margin"] == pytest.approx(2, abs=0.6)  # scores are -1 and 1


@pytest.mark.slow
def test_dialogues_in_pairs_with_negatives(tmp_path):
    random = np.random.default_rng(1)
    start = "\n\nHuman: sing {}\n\nAssistant: "
    rows = [
        {side: start.format(i) + song(random, side == "chosen") for side in ("chosen", "rejected")}
        for i in range(80)
    ]
    rows.append({"chosen": start.format(1) + "la", "rejected": start.format(1)})
    rows.append({"chosen": start.format(2) + "la", "rejected": start.format(3) + "brr"})
    write_table(tmp_path / "pairs.jsonl", pa.Table.from_pylist(rows))
    train(
        tmp_path / "run", tmp_path / "pairs.jsonl", "harmless",
        **{"text.texts": r"('{dialogue}\n\nAssistant: {response}',)", "match.num_steps": 0,
           "data.negatives": "('praise=0.5','other_prompt=0.5')"},
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert read_card(tmp_path / "run" / "reward_model").cut == "left"
    groups = read_table(tmp_path / "run" / "groups.parquet").to_pylist()
    praised = [group["responses"][2] in PRAISE for group in groups if group["split"] == "train"]
    assert 0.2 < np.mean(praised) < 0.8
    card = json.loads((tmp_path / "run" / "reward_model" / "reward_model.json").read_text())
    assert card["data"]["negatives"] == ["praise=0.5", "other_prompt=0.5"]
    assert card["validation"]["num_prompts"] + card["metrics"]["num_prompts"] < len(praised)
    assert card["validation"]["robustness"].keys() == card["robustness"].keys()
    assert card["robustness"]["praise"]["preferred"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.test_share": 1.5}, "config.data.test_share=1.5"),
        ({"data.test_share": 1e-9}, "left for test"),
        ({"text.texts": "('{prompt}',)"}, "config.text.texts"),
        ({"text.cut": "above"}, "config.text.cut"),
        ({"text.cut": "left"}, "where a response begins cannot be told"),
        ({"match.batch_size": 100}, "config.match.batch_size=100: there are"),
        ({"data.validation_share": 0.95}, "nothing is left to train on"),
        ({"data.train_part": "(0.5,0.5)"}, "config.data.train_part"),
        ({"train.loss": "regression", "data.score": ""}, "config.train.loss"),
        ({"data.negatives": "('shuffled=1.5',)"}, "'shuffled=1.5' will not do"),
        ({"data.negatives": "('shuffled=0.5',)"}, "the shares add up to 0.5"),
        ({"train.loss": "regression", "data.negatives": "('cut=1',)"}, "config.data.negatives: a"),
        ({"data.score": "beauty"}, "no column 'beauty'"),
        ({"data.margin": 2.0}, "left for train"),
        ({"data.group_size": 50}, "left for train"),
        ({"text.max_tokens": 1000}, "context of 512"),
        ({"text.max_tokens": 1}, "config.text.max_tokens=1 is not valid"),
        ({"model.num_layers": 5}, "has 2 layers, not 5"),
    ],
)
def test_options_that_do_not_fit(scored, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        train(tmp_path, scored, "helpful", **SCORED | options)
    assert message in capsys.readouterr().err


def test_a_judge_learns_from_the_other_half_of_the_prompts_alone():
    helpful, judge = (
        load_config(f"{ROOT / 'configs/reward_model.py'}:{example}").to_dict()
        for example in ("helpful", "helpful_judge")
    )
    assert (helpful["data"]["train_part"], judge["data"]["train_part"]) == ((0, 0.5), (0.5, 1))
    judge["data"]["train_part"] = helpful["data"]["train_part"]
    assert judge == helpful


def test_its_rewards_do_not_depend_on_the_mesh(workdir):
    name, texts = str(workdir / "reward_model"), (["sing 1", "sing 2"], ["la mi la", "brr"])
    alone = score(*texts, [name])
    with sharded(make_mesh(), DECODING_RULES):
        np.testing.assert_allclose(score(*texts, [name]), alone, rtol=0, atol=1e-5)
