"""Gates in a run: whose columns they are, and which rows they leave to be trained on."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.config import default_config
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.gates import run_gates
from paretohqd_jax.steps.scoring import add_rewards, score_data
from paretohqd_jax.steps.selection import write_drawn_rows, write_selection
from paretohqd_jax.steps.task import check_alignment, checkpoints, reward_options

BASE = BaseModel("random:toy", "float32", "none", "{prompt}:", LoraConfig(rank=1))
COLUMNS = {"a": [9.0, 1.0, 2.0, 3.0], "b": [9.0, 3.0, 2.0, 1.0], "c": [0, 1, 2, 3]}


def config_of(*gates, models=("short=brief", "positivity")):
    config = default_config()
    config.data.source, config.data.prompt_format = "quickstart", "{prompt}:"
    config.model.source, config.rewards.models = "random:toy", models
    config.select.gates = gates
    return config


def test_every_gate_finds_who_gives_its_column():
    gates, scorers, columns = run_gates(
        config_of(
            "short>=-3", "words>=8", "likelihood>=-4", "other=likelihood@random:toy>=-5",
            "other<0", "quality>3", "words<=99", "short=brief<0",
        )
    )  # fmt: skip
    assert scorers == ["words", "likelihood", "other=likelihood@random:toy"]
    assert columns == ["quality"]
    assert [str(gate) for gate in gates] == [
        "short>=-3", "words>=8", "likelihood>=-4", "other>=-5", "other<0", "quality>3",
        "words<=99", "short<0",
    ]  # fmt: skip
    options = reward_options(config_of("words>=8", "short<0"))
    assert options["models"] == ["short=brief", "positivity", "words"]


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("positivity=brief>0", "'positivity=brief>0': the column 'positivity' is another's"),
        ("split=brief>0", "'split=brief>0': the column 'split' is another's"),
        ("collapsed<1", "'collapsed' is no score"),
        ("words>=eight", "'words>=eight' is no gate"),
        ("x=nothing>0", "unknown reward model 'nothing'; use one of brief"),
        ("nothing@here>0", "'nothing' is not in the registry"),
        ("no_such_module:f>0", "cannot import no_such_module"),
        ("likelihood@no/where.gguf>0", "model 'no/where.gguf' not found"),
    ],
)
def test_a_gate_that_names_nothing_of_use_is_refused_before_any_work(gate, message):
    with pytest.raises(InputError, match=message) as caught:
        check_alignment(config_of(gate))
    assert "\n" not in str(caught.value)


def test_gates_of_one_column_and_two_scorers_are_refused():
    with pytest.raises(InputError, match="the column 'x' is another's; write COLUMN=positivity"):
        run_gates(config_of("x=brief>0", "x=positivity>0"))


def test_likelihood_in_a_run_is_that_of_its_base_model():
    check_alignment(config_of("likelihood>=-4"))
    known = checkpoints(["likelihood"], BASE)["checkpoints"]["likelihood"]
    assert known[0]["texts"] == ("{prompt}:", "{response}") and known[1] == "random:toy"


def rows(*texts, **columns):
    table = pa.table({"prompt": ["ab"] * (len(texts) - 1) + ["c"], "response": list(texts)})
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def score_rows(tmp_path, table, models, gate_columns=()):
    source, path = tmp_path / "rows.parquet", tmp_path / "scores.parquet"
    write_table(source, table)
    score_data(
        path, tmp_path / "scratch", base=BASE, data={"source": str(source)}, num_test_prompts=1,
        models=models, backend="jax", dtype="float32", min_tokens=1, max_tokens=100,
        batch_size=16, store=tmp_path / "store", max_new_tokens=20, gate_columns=gate_columns,
    )  # fmt: skip
    return read_table(path)


def test_data_and_responses_get_the_columns_of_gates(tmp_path):
    models = ["brief", "likelihood", "words"]
    table = score_rows(tmp_path, rows("x y", "z", "z", quality=[1, 2, 3]), models, ["quality"])
    assert table.column_names == [
        "prompt", "response", "source_row", "quality", "split", *models,
    ]  # fmt: skip
    assert table["quality"].to_pylist() == [1, 2, 3]
    assert table["words"].to_pylist() == [2, 1, 1]
    write_table(tmp_path / "answers.parquet", rows("x y", "z", "", periodic_tail=[0, 0, 0]))
    add_rewards(
        tmp_path / "scored.parquet", tmp_path / "scratch",
        Output(tmp_path / "answers.parquet", "", {}), base=BASE, models=models, backend="jax",
        dtype="float32", batch_size=16, store=tmp_path / "store",
    )  # fmt: skip
    scored = read_table(tmp_path / "scored.parquet")
    np.testing.assert_allclose(scored["likelihood"][:2], table["likelihood"][:2], rtol=1e-5)


def test_columns_of_the_data_that_are_not_there_are_named_before_anything_is_scored(tmp_path):
    table = rows("x", "y", quality=["good", "bad"])
    with pytest.raises(InputError, match="'quallity' is no objective, no scorer and no column of"):
        score_rows(tmp_path, table, ["nothing"], ["quallity"])
    with pytest.raises(InputError, match="row 0: 'quality' is 'good', not a number"):
        score_rows(tmp_path, table, ["nothing"], ["quality"])


def select_from(tmp_path, gates, k=2, **marks):
    size = len(COLUMNS["a"])
    texts = {"prompt": ["p"] * size, "response": ["word"] * size}
    write_table(tmp_path / "scored.parquet", pa.table(texts | COLUMNS | marks))
    out = tmp_path / "selection.parquet"
    write_selection(
        out, tmp_path, Output(tmp_path / "scored.parquet", "", {}), objectives=["a", "b"],
        preferences=[[0.0, 1.0], [1.0, 0.0]], k=k, gates=gates, rule="ray", range_scope="data",
        normalize=True, min_pool_size=0,
    )  # fmt: skip
    table = read_table(out)
    return table["row_id"].to_pylist(), json.loads(table.schema.metadata[b"selection"])


def test_rows_that_fail_a_gate_are_not_selected_and_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    selected, facts = select_from(tmp_path, ["c>=1", "a<=3"])
    assert selected == [1, 2, 3, 2]
    assert facts["gates"] == {
        "c>=1": {"failed": 1, "failed_alone": 0}, "a<=3": {"failed": 1, "failed_alone": 0},
    }  # fmt: skip
    assert (facts["num_before_gates"], facts["num_candidates"]) == (4, 3)
    assert "gate c>=1: 1 of 4 rows fail it, 0 of them no other gate" in caplog.text


@pytest.mark.parametrize(
    "marks", [{"split": ["test", *["train"] * 3]}, {"collapsed": ["loop", *[""] * 3]}]
)
def test_counts_are_of_rows_that_are_fit_otherwise(tmp_path, marks):
    _, facts = select_from(tmp_path, ["c>=2"], **marks)
    assert facts["gates"] == {"c>=2": {"failed": 1, "failed_alone": 1}}
    assert facts["num_before_gates"] == 3


def test_a_column_of_the_datas_own_says_nothing_of_generated_rows(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert select_from(tmp_path, ["quality>3"])[1]["gates"] == {}
    assert "gate quality>3: these rows have no such column, so all pass" in caplog.text


def test_too_few_rows_after_the_gates_say_which_took_how_many(tmp_path):
    message = (
        r"1 rows to select from, fewer than k=2: of 4 rows 0 are held out or have collapsed, "
        r"and of the others the gate c>=2 takes 2 \(1 alone\), a>=2.5 takes 2 \(1 alone\); loosen"
    )
    with pytest.raises(InputError, match=message):
        select_from(tmp_path, ["c>=2", "a>=2.5"])


def test_rows_that_fail_are_not_drawn_either(tmp_path):
    write_table(tmp_path / "scored.parquet", pa.table(COLUMNS))
    scored, out = Output(tmp_path / "scored.parquet", "", {}), tmp_path / "drawn.parquet"
    write_drawn_rows(out, tmp_path, scored, name="draw", rule="all", k=9, gates=["c>=2"], seed=0)
    table = read_table(out)
    assert table["row_id"].to_pylist() == [2, 3]
    facts = json.loads(table.schema.metadata[b"selection"])
    assert facts["gates"] == {"c>=2": {"failed": 2, "failed_alone": 2}}
    with pytest.raises(InputError, match=r"0 rows to draw from.* the gate c>=9 takes 4 \(4 alone"):
        write_drawn_rows(
            out, tmp_path, scored, name="draw", rule="all", k=9, gates=["c>=9"], seed=0
        )
