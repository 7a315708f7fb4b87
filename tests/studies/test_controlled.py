"""The controlled task: its truth against brute force, its data, its base model, its config."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import jax
import numpy as np
import pytest

from paretohqd_jax.config.loading import load_config
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.data.scores_in_prompt import words_with
from paretohqd_jax.data.sources import load_pairs, load_rows
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import Box
from paretohqd_jax.evaluation.single_answers import achievements
from paretohqd_jax.evaluation.truth import best_achievements
from paretohqd_jax.main import parse_flags
from paretohqd_jax.methods.paretohqd import check
from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.pareto import hypervolume
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.studies import controlled
from paretohqd_jax.studies.controlled import PowerFront, rows
from paretohqd_jax.studies.pretraining import pretrain

TASK = "paretohqd_jax.studies.controlled"


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("num_objectives", [2, 3, 5])
def test_volumes_against_brute_force(num_objectives, exponent):
    truth = PowerFront(num_objectives, exponent)
    random = np.random.default_rng(0)
    inside = random.uniform(size=(200_000, num_objectives))
    if exponent < 1:
        volume = np.mean((inside ** (1 / exponent)).sum(axis=1) <= 1)
    else:  # which few of these are below: integrated over the shares
        shares = random.dirichlet(np.ones(num_objectives + 1), 200_000)[:, :num_objectives]
        slopes = (exponent * shares ** (exponent - 1)).prod(axis=1)
        volume = slopes.mean() / math.factorial(num_objectives)
    assert truth.volume == pytest.approx(volume, rel=0.03)
    hull = volume if exponent < 1 else np.mean(inside.sum(axis=1) <= 1)
    assert truth.mean_volume == pytest.approx(hull, rel=0.06)
    if num_objectives == 2:
        assert hypervolume(truth.points, truth.reference) == pytest.approx(truth.volume, abs=1e-3)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_distances_and_best_achievements_against_brute_force(exponent):
    truth = PowerFront(3, exponent)
    np.testing.assert_allclose(truth.distance(truth.points), 0, atol=1e-9)
    np.testing.assert_allclose(truth.distance(0.7 * truth.points), 0.3, atol=1e-9)
    assert truth.distance(np.zeros(3)) == 1
    box = Box(np.zeros(3), np.array([1.0, 0.9, 1.0]), "test")
    preferences = np.array([[0.6, 0.2, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    shares = np.array([s for s in itertools.product(range(121), repeat=3) if sum(s) == 120]) / 120
    front = shares**exponent
    expected = achievements(preferences, np.stack([front, front]), box.low, box.high).max(axis=1)
    best = best_achievements(truth, preferences, box)
    np.testing.assert_allclose(best, expected, atol=0.02)


def test_the_judge_is_exact_and_noise_is_on_the_scores_alone():
    source = f"{TASK}:rows(2,2.0,0.1,400,3)"
    table = load_rows(source, scores="b=b,d=d")
    models = [f"{name}={TASK}:reward({number},2.0)" for number, name in enumerate("bd")]
    texts = (table["prompt"].to_pylist(), table["response"].to_pylist())
    judged = score(*texts, models)
    words = texts[1][0].split()
    assert judged[0, 1] == pytest.approx((sum(w[0] == "d" for w in words) / len(words)) ** 2)
    noise = np.stack([table["b"].to_numpy(), table["d"].to_numpy()], axis=1) - judged
    assert noise.std() == pytest.approx(0.1, rel=0.1) and abs(noise.mean()) < 0.01
    clean = rows(2, 0.5, 0.0, 400, 3)
    assert [row["response"] for row in clean] == [
        row["response"] for row in rows(2, 2.0, 0.1, 400, 3)
    ]
    assert (np.sum([[row["b"] ** 2, row["d"] ** 2] for row in clean], axis=1) <= 1 + 1e-9).all()


def test_any_two_responses_to_a_prompt_are_a_pair():
    pairs = load_pairs(f"{TASK}:rows(2,1.0,0.0,20,0)")
    assert pairs.num_rows == 2 * 45 and {"b", "d"} <= {*pairs.column_names}


def test_a_model_learns_to_write_the_task(tmp_path):
    """Nearly all of its probability is on syllables and the end, though it is tinier by far."""
    data = rows(2, 1.0, 0.0, 300, 0)
    asked = [controlled.PROMPT_FORMAT.format(prompt=row["prompt"]) for row in data]
    answers = [row["response"] for row in data]
    further = controlled.score_words(2, hidden_size=32)
    pretrain(
        tmp_path / "base", asked, answers, hidden_size=32, num_layers=1, num_steps=120,
        read_only=further,
    )  # fmt: skip
    config, params = load_pretrained(str(tmp_path / "base"))
    tokenizer = load_tokenizer(str(tmp_path / "base"))
    valid = tokenizer.convert_tokens_to_ids(controlled.vocabulary(2))
    assert tokenizer.decode(valid[:3]) == "ba be bi"
    text = f"star star star : {answers[0]}"
    tokens = np.array([tokenizer(text)["input_ids"]])
    hidden, _ = jax.jit(Llama(config).apply)({"params": params}, tokens)
    chances = jax.nn.softmax(compute_logits(hidden[0, 3:], output_embedding(params, config)))
    assert chances[:, [*valid, tokenizer.eos_token_id]].sum(axis=1).mean() > 0.95
    read = tokenizer.convert_tokens_to_ids([*further])
    assert len({*read, tokenizer.unk_token_id}) == len(further) + 1
    assert chances[:, read].sum(axis=1).mean() < 0.01


@pytest.mark.slow
def test_a_run_is_small_and_its_base_model_writes_syllables(tmp_path):
    """The task as it is used: 2 GB at most, and a base model that was trained to the end."""
    base = tmp_path / "base"
    controlled.write_base(2, 1200, 0, base)
    run_in_own_process = (
        "import resource, sys; from paretohqd_jax.main import main; main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = [
        "paretohqd",
        "--config=controlled:sft",
        f"--workdir={tmp_path}/run",
        f"--config.model.source={base}",
    ]
    command = [sys.executable, "-c", run_in_own_process, *words]
    kilobytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(kilobytes[-1]) < 2 * 1024**2
    answers = read_table(tmp_path / "run/evaluation/responses.parquet").to_pylist()
    of_base = [row["response"] for row in answers if row["policy"] == "base model"]
    written = " ".join(of_base).split()
    valid = {*controlled.vocabulary(2)}
    assert sum(word in valid for word in written) >= 0.99 * len(written) > 200


def test_scores_are_written_in_words_that_the_model_knows():
    further = controlled.score_words(3)
    for scores in ((-10, 0.04, 9.96), (1.25, -0.3, -4.1)):
        assert {*words_with(scores).split()[1:]} <= {*further}

    def alike(one, other):
        return np.corrcoef(further[one], further[other])[0, 1]

    assert alike("1.2", "1.3") > 0.95 > 0.5 > alike("1.2", "3.2")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("paretohqd,hollow,M=1", "1 objectives: the controlled task has 2 to"),
        ("paretohqd,0", "front '0': use one of bulging, flat, hollow, or the exponent"),
        ("paretohqd,-1", "a number above 0"),
        ("paretohqd,curly", "front 'curly'"),
        ("ppo,hollow", "method 'ppo' is not one of paretohqd"),
        ("sft,hollow,size=3", "'size=3': write NAME=NUMBER with a name among M, noise"),
        ("sft,hollow,M=two", "'M=two': write NAME=NUMBER"),
        ("sft,hollow,noise=-0.1", "noise=-0.1: give a standard deviation"),
        ("sft,hollow,noise=nan", "noise=nan: give"),
        ("sft,hollow,rows=0", "rows=0: the controlled task has 1 to 17280"),
        ("sft,hollow,rows=17281", "rows=17281: the"),
        ("sft,hollow,seed=-1", "seed=-1: give"),
    ],
)
def test_mistakes_are_named(argument, message):
    with pytest.raises(InputError, match=message):
        load_config(f"controlled:{argument}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{TASK}:rows(1,2.0,0.1,20,0)", "1 objectives"),
        (f"{TASK}:rows(2,0,0.1,20,0)", "front 0: use one of"),
        (f"{TASK}:rows(2,2.0,-1,20,0)", "noise=-1"),
    ],
)
def test_mistakes_in_a_source_are_named(source, message):
    with pytest.raises(InputError, match=message):
        load_rows(source, scores="b=b,d=d")
    with pytest.raises(InputError, match="front -1: use one of"):
        score(["dawn"], ["ba de"], [f"b={TASK}:reward(0,-1)"])


def test_prompts_are_different_as_far_as_rows_go():
    assert len({*controlled.prompts(1728)}) == 1728


def test_configs_are_valid():
    for argument in ("sft,bulging", "best_of_n,3.0,noise=0.2", "paretohqd,hollow,M=3,rows=200"):
        flags = [f"--config=controlled:{argument}", "--workdir=run"]
        config = parse_flags(["main", *flags, "--config.model.source=random:toy"])[0]
        check(config)
    preferences = load_config("controlled:paretohqd,flat").preferences
    assert preferences == "0.1,0.9;0.3,0.7;0.5,0.5;0.7,0.3;0.9,0.1"
