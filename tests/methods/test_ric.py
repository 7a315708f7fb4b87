"""Rewards-in-Context from the command line, on the toy."""

from __future__ import annotations

import json
import logging
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from toy_runs import run_toy

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.scores_in_prompt import scores_in
from paretohqd_jax.manifest import read_manifest
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import read_policies
from paretohqd_jax.steps.rewards_in_context import write_mixture
from paretohqd_jax.steps.serving import served_model
from paretohqd_jax.training.losses import sft_loss
from paretohqd_jax.training.metrics import read_metrics

OBJECTIVES = ["brief", "configs.toy:vowels"]
SHORT = ("--config.train.offline_steps=4", "--config.train.online_steps=3",
         "--config.evaluate.max_new_tokens=4", "--config.generate.num_prompts=12")  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("ric")
    run_toy(path, *SHORT, method="ric")
    return path


def test_rows_are_learnt_after_their_own_scores(workdir):
    scored, rows = (read_table(workdir / name) for name in ("scores.parquet", "ric/data.parquet"))
    stored = json.loads(scored.schema.metadata[b"rewards"])
    for column, name in enumerate(OBJECTIVES):
        own = (scored[name].to_numpy() - stored[name]["mean"]) / stored[name]["std"]
        written = [scores_in(prompt)[column] for prompt in rows["prompt"].to_pylist()]
        np.testing.assert_allclose(written, own, atol=0.0501)
    assert rows["question"].to_pylist() == scored["prompt"].to_pylist()


def test_answers_are_scored_by_their_own_prompts_and_the_good_ones_learnt(workdir):
    answers, mixed = (
        read_table(workdir / f"ric/{name}1.parquet") for name in ("answers", "mixture")
    )
    asked = [scores_in(prompt) for prompt in answers["asked"].to_pylist()]
    questions = read_table(workdir / "ric/data.parquet")["question"].to_pylist()
    assert {*answers["prompt"].to_pylist()} <= {*questions}
    targets = read_policies(workdir / "policies.json").targets
    assert all(max(a - h for a, h in zip(own, targets.high, strict=True)) == 0 for own in asked)
    assert mixed.num_rows <= 40 + answers.num_rows
    assert mixed["row_id"].to_pylist() == [*range(mixed.num_rows)]
    for prompt, *own in zip(*(mixed[name].to_pylist() for name in ("prompt", *OBJECTIVES)),
                            strict=True):  # fmt: skip
        np.testing.assert_allclose(scores_in(prompt), own, atol=0.0501)


def test_one_adapter_is_trained_on_and_serves_every_preference(workdir, caplog):
    policies = read_policies(workdir / "policies.json")
    assert [*policies.families] == ["offline", "online1"]
    assert policies.stacks == {"offline": ["ric"], "online1": ["ric"]}
    assert {policy.adapters for policy in policies.served} == {("online1/ric",)}
    scores = policies.targets.scores(np.array([policy.preference for policy in policies.served]))
    assert [scores_in(policy.ask("sing 1")) for policy in policies.served] == scores.tolist()
    rates = read_metrics(workdir / "logs/online1")["learning_rate"]
    np.testing.assert_allclose([*rates.values()], 3e-3, rtol=1e-6)
    assert read_manifest(workdir)["online1"]["cost"]["optimizer_steps"] == 3
    caplog.set_level(logging.INFO, logger="paretohqd_jax")
    policy, *_ = served_model(workdir, "0.25,0.75", "", interpolate=False, source="")
    asked = policies.targets.scores(np.array([[0.25, 0.75]]))[0]
    assert scores_in(policy.ask("sing 1")) == asked.tolist() not in scores.tolist()
    assert f"w0.25_0.75: online1/ric, asked {policy.prompt!r} (brief, " in caplog.text


def test_who_takes_the_models_over_asks_as_they_were_trained(workdir):
    policy = read_policies(workdir / "policies.json").served[1]
    template = (workdir / f"adapters/{policy.label}/chat_template.jinja").read_text("utf-8")
    text = load_tokenizer("random:toy").apply_chat_template(
        [{"role": "user", "content": "sing {1}"}], chat_template=template, tokenize=False
    )
    assert text == policy.ask("sing {1}") + ":"
    assert policy.prompt in (workdir / "adapters" / policy.label / "README.md").read_text("utf-8")
    report = (workdir / "report/report.html").read_text("utf-8")
    assert policy.prompt.replace("<", "&lt;").replace(">", "&gt;") in report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ric.mapping=l1"], "config.ric.mapping='l1' is not valid; use one of l2, linf, linear"),
        (["ric.range=wide"], "config.ric.range='wide' is not valid; use data, normal or LOW,HIGH"),
        (["ric.range=-9,9"], r"config.ric.range='-9,9': the standardised rewards of 'brief' in .*"
         r"scores.parquet go from -\d.\d to \d.\d, and nothing is learnt of scores beyond"),
        (["ric.iterations=4"], "config.ric.iterations=4 is not valid; use 0 to 3"),
        (["ric.quantile=1"], r"config.ric.quantile=1.0 is not valid; use in \[0, 1\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run_toy(tmp_path, *(f"--config.{option}" for option in options), method="ric")
    assert re.search(message, capsys.readouterr().err)


def test_a_range_beyond_the_data_is_told(workdir, tmp_path, capsys):
    for name in ("scores.parquet", "manifest.json"):
        shutil.copy(workdir / name, tmp_path)
    run_toy(
        tmp_path, *SHORT, "--config.ric.range=normal", "--stage=scores_in_prompts", method="ric"
    )
    told = capsys.readouterr().err
    for name in OBJECTIVES:
        assert f"config.ric.range='normal': the standardised rewards of {name!r} in " in told
    assert "nothing is learnt of scores beyond; use one within or 'data', unless" in told


def test_prompts_that_have_scores_already_are_refused(tmp_path, capsys):
    rows = [{"prompt": f"sing {number}", "response": "la " * number} for number in range(1, 30)]
    rows[7]["prompt"] += " <rm1_score> 0.3"
    write_table(tmp_path / "rows.jsonl", pa.Table.from_pylist(rows))
    source = f"--config.data.source={tmp_path / 'rows.jsonl'}"
    with pytest.raises(SystemExit):
        run_toy(tmp_path / "run", source, "--config.draw.k=2", method="ric")
    assert "row 7: the prompt has <rm1_score> in it already" in capsys.readouterr().err


def mixture(tmp_path, rows, answers, **options):
    """What `write_mixture` leaves of rows of the data and answers, with standard statistics."""
    objectives = ["kind", "short"]
    facts = {"low": [-1, -1], "high": [1, 1], "statistics": [[0.0, 1.0], [1.0, 2.0]]}
    tables = {
        "data": pa.Table.from_pylist(rows).replace_schema_metadata({"ric": json.dumps(facts)}),
        "drawn": pa.table({"row_id": range(len(rows))}),
        "answers": pa.Table.from_pylist(answers),
    }
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.parquet", table)
    how = {"quantile": 0.5, "num_original": 9, "gates": [], "without_end": False,
           "clean": False, "seed": 0, "name": "mix1"}  # fmt: skip
    outputs = [Output(tmp_path / f"{name}.parquet", "", {}) for name in tables]
    path = tmp_path / "mixture.parquet"
    write_mixture(path, tmp_path, *outputs, objectives=objectives, **how | options)
    return read_table(path).to_pylist()


def test_answers_are_standardised_by_the_statistics_of_training_rows(tmp_path):
    rows = [{"prompt": f"p{n} <rm1_score> {n}.0 <rm2_score> 0.0", "response": "x",
             "truncated": False, "kind": float(n), "short": 0.0} for n in range(4)]  # fmt: skip
    answers = [
        {"prompt": "p", "response": response, "truncated": False, "collapsed": collapsed,
         "asked": "p <rm1_score> 1.0 <rm2_score> 1.0", "kind": kind, "short": 2.0}
        for response, collapsed, kind in
        [("la", "", 0.5), ("lu", "", -0.5), ("la la", "loop", 9.0), ("well.....", "", 0.7)]
    ]  # fmt: skip
    for answer in answers:
        answer["short"] = 2.0 + answer["kind"]
    mixed = mixture(tmp_path, rows, answers)
    assert [row["response"] for row in mixed] == ["x"] * 4 + ["la", "well....."]
    assert mixed[-1]["prompt"] == "p <rm1_score> 0.7 <rm2_score> 0.8"  # (2.7 - 1) / 2 = 0.85
    answers[1]["prompt"] = "p :) :) :)"
    cleaned = mixture(tmp_path, rows, answers, clean=True, without_end=True, quantile=0.0)
    assert [row["response"] for row in cleaned] == ["x"] * 4 + ["la"]
    assert cleaned[-1]["truncated"]
    assert len(mixture(tmp_path, rows, answers, num_original=1)) == 3


def test_what_is_learnt_after_scores_is_the_distribution_of_responses_that_had_them():
    """A model that is a table, from scores to logits of responses: its optimum is p(y | s)."""
    random = np.random.default_rng(0)
    scores = random.integers(0, 3, 60)
    responses = (scores + random.integers(0, 2, 60)) % 4
    counts = np.zeros((3, 4))
    np.add.at(counts, (scores, responses), 1)

    def loss(table):
        log_probs = jax.nn.log_softmax(table)[scores, responses]
        return sft_loss(log_probs[:, None], jnp.ones((60, 1), bool))

    table = jnp.zeros((3, 4))
    step = jax.jit(lambda table: table - 5 * jax.grad(loss)(table))
    for _ in range(800):
        table = step(table)
    learnt = jax.nn.softmax(table)
    np.testing.assert_allclose(learnt, counts / counts.sum(axis=1, keepdims=True), atol=2e-3)
