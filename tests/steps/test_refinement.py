"""What models are asked for reviews and rewrites, and what is kept of what they say."""

from __future__ import annotations

import pyarrow as pa
import pytest

from paretohqd_jax.config import default_config
from paretohqd_jax.data.refinement_prompts import FIELDS, cut, filled, read_refinement_prompt
from paretohqd_jax.data.rows import write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps import refinement
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.refinement import (
    ask_again,
    check_budget,
    refinement_budget,
    refinement_prompts,
    with_answers,
)

BASE = BaseModel("random:toy", "float32", "none", "{prompt}:", lora=None)


@pytest.fixture
def config():
    config = default_config("sipo")
    config.generate.max_new_tokens = 10
    config.sipo.review_tokens = 20
    return config


@pytest.mark.parametrize("name", FIELDS)
def test_the_prompts_of_the_package_have_their_fields(name, tmp_path):
    text = read_refinement_prompt(name, "", "option")
    (tmp_path / "own.txt").write_text(text)
    assert read_refinement_prompt(name, str(tmp_path / "own.txt"), "option") == text


def test_what_is_filled_in_stays_as_it_is():
    values = {"prompt": "{response}?", "response": "{x}", "review": ""}
    assert filled("{prompt} {response} {other}", values) == "{response}? {x} {other}"
    assert cut(" An answer.\nQuestion: another") == "An answer."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{prompt} {response}", r"has \{review\} 0 times; it must have \{p"),
        ("{prompt} {response} {review} {review}", r"has \{review\} 2 times"),
        ("{prompt} {response} {review} {answer}", r"has \{answer\} 1 times.*and no other field"),
    ],
)
def test_a_prompt_that_will_not_do_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "own.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_refinement_prompt("sipo_rewrite", str(tmp_path / "own.txt"), "config.sipo.x")


def test_a_prompt_without_a_review_has_no_field_for_one(config, tmp_path):
    config.sipo.refinement = "rewrite"
    config.sipo.rewrite_prompt = str(tmp_path / "own.txt")
    (tmp_path / "own.txt").write_text("{prompt} {response} {review}")
    with pytest.raises(InputError, match=r"rewrite_prompt='.*own.txt': has \{review\} 1 times"):
        refinement_budget(config, BASE)


def test_the_budget_counts_prompts_answers_and_reviews(config, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("{prompt}|{response}")  # in bytes, which the toy's tokens are: "|:" and EOS
    config.sipo.review_prompt = str(path)
    path = tmp_path / "rewrite.txt"
    path.write_text("{prompt}|{response}|{review}")
    config.sipo.rewrite_prompt = str(path)
    budget = refinement_budget(config, BASE)
    assert budget == {"review": 2 + 10 + 20, "rewrite": 3 + 10 + 20 + 10}
    check_budget(BASE, ["x" * 400], budget)
    told = "the rewrite .* up to 543 tokens, with the prompt 'é*' more .*config.data.max_tokens"
    with pytest.raises(InputError, match=told):  # of the two the longer one in tokens
        check_budget(BASE, ["x" * 460, "é" * 250], {"rewrite": 43})
    with pytest.raises(InputError, match="even without the user's prompt more than"):
        check_budget(BASE, [""], {"rewrite": 600})
    config.sipo.refinement = "none"
    assert refinement_budget(config, BASE) == {} == refinement_prompts(config)


def test_answers_are_cut_and_empty_ones_left_out():
    rows = pa.table({"prompt": ["p", "q", "r"], "response": ["x"] * 3, "policy": ["w"] * 3})
    answers = pa.table({
        "response": ["Good. Question: more", " Question: more", "Cut"],
        "truncated": [True, True, True], "periodic_tail": [True, False, True],
    })  # fmt: skip
    reviewed = with_answers(rows, answers, "review")
    assert reviewed["review"].to_pylist() == ["Good.", "Cut"]
    rewritten = with_answers(rows, answers, "rewrite")
    assert rewritten.to_pylist() == [
        {"prompt": "p", "policy": "w", "response": "Good.", "truncated": False,
         "periodic_tail": False},
        {"prompt": "r", "policy": "w", "response": "Cut", "truncated": True,
         "periodic_tail": True},
    ]  # fmt: skip


@pytest.mark.parametrize("prompt", ["p", "p" * 600])  # the second leaves the context no room
def test_where_no_review_says_anything_the_remedy_is_named(tmp_path, monkeypatch, prompt):
    answers = {"response": [" Question: p"], "truncated": [False], "periodic_tail": [False]}
    monkeypatch.setattr(
        refinement, "answers_of", lambda *_: pa.table(answers | {"num_tokens": [3]})
    )
    drafts = pa.table({"prompt": [prompt], "response": ["x"], "policy": ["w"]})
    write_table(tmp_path / "drafts.parquet", drafts)
    with pytest.raises(InputError, match="every review of 1 answers is empty or finds no room.*no"):
        ask_again(
            tmp_path / "out", tmp_path, Output(tmp_path / "drafts.parquet", "", {}), base=BASE,
            workdir=tmp_path, name="review", template="{prompt}|{response}", writers=["w"],
            policies=[{"label": "w"}], stacks={}, num_prompts=1,
            sampling={"max_new_tokens": 4}, batch_size=1, seed=0,
        )  # fmt: skip
