"""From drafts and rewrites to pairs of a better answer, and the messages where there are none."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pipeline import Output
from paretohqd_jax.steps import realignment
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.conflicts import write_candidates, write_conflicts
from paretohqd_jax.steps.improvement import check_improved, judge, write_improvement
from paretohqd_jax.steps.realignment import better_pairs, train_on_improvements

PAIRS = {
    "prompt": ["say p", "say p", "say q"],
    "chosen": ["one two three", "one two four", "five six seven"],
    "rejected": ["one two four", "one two five", "five six eight"],
    "kind": [1, 1, 1],
    "brief": [-1, 1, -1],
    "split": ["train"] * 3,
}
DRAFTS = {
    "prompt": ["say p", "say q", "say q"],
    "response": ["a better answer", "la la la la la la la la la", "a long good answer"],
    "policy": ["w0.5", "w0.5", "w0.8"],
    "truncated": [False, True, False],
    "periodic_tail": [False] * 3,
}
REWRITES = {
    "prompt": ["say p", "say q"],
    "response": ["the best answer", "a short good answer"],
    "policy": ["w0.5", "w0.8"],
    "review": ["be brief", "be kind"],
    "truncated": [False, False],
    "periodic_tail": [False, False],
}


def output(path, table):
    write_table(path, pa.table(table))
    return Output(path, "", {})


@pytest.fixture
def conflicts(tmp_path):
    pairs = output(tmp_path / "pairs.parquet", PAIRS)
    base = BaseModel("random:toy", "float32", "none", "{prompt}:", lora=None)
    write_conflicts(
        tmp_path / "conflicts.parquet", tmp_path, pairs, base=base, budget={},
        objectives=["kind", "brief"], num_prompts=9, seed=0,
    )  # fmt: skip
    return Output(tmp_path / "conflicts.parquet", "", {})


@pytest.fixture
def candidates(tmp_path, conflicts):
    drafts = output(tmp_path / "drafts.parquet", DRAFTS)
    rewrites = output(tmp_path / "rewrites.parquet", REWRITES)
    write_candidates(tmp_path / "candidates.parquet", tmp_path, conflicts, drafts, rewrites)
    return Output(tmp_path / "candidates.parquet", "", {})


def improved(tmp_path, conflicts, candidates, rewards, **options):
    """`rewards` are by response, `[judges]`; beta is 1 and the base model's log-probability -9.

    By the reward models "the best answer" is better than all others.
    """
    judged = read_table(candidates.path)
    texts = judged["response"].to_pylist()
    collapsed = pa.array(["loop" * text.startswith("la la") for text in texts])
    if "kind" not in judged.column_names:
        judged = judged.append_column("collapsed", collapsed)
        for name in ("kind", "brief"):
            best = [float(text == "the best answer") for text in texts]
            judged = judged.append_column(name, pa.array(best))
        candidates = output(tmp_path / "judged.parquet", judged)
    likelihoods = np.array([[0.0, 0.0], *[rewards.get(text, (0, 0)) for text in texts]]).T[:, 1:]
    np.save(tmp_path / "log_probs.npy", np.vstack([np.zeros(len(texts)), likelihoods]) - 9)
    how = {"objectives": ["kind", "brief"], "judges": ["kind", "w0.5"], "beta": 1.0,
           "filter": "implicit", "margin": 0.0}  # fmt: skip
    write_improvement(
        tmp_path / "improvement.parquet", tmp_path, conflicts, candidates,
        Output(tmp_path / "log_probs.npy", "", {}), **how | options,
    )  # fmt: skip
    return read_table(tmp_path / "improvement.parquet")


def test_pairs_in_conflict_and_every_text_of_their_prompts(conflicts, candidates):
    assert read_table(conflicts.path)["chosen"].to_pylist() == ["one two three", "five six seven"]
    texts = read_table(candidates.path)
    assert texts["source"].to_pylist() == ["original"] * 4 + ["draft"] * 3 + ["rewrite"] * 2
    assert texts["review"].to_pylist() == [""] * 7 + ["be brief", "be kind"]
    assert texts["truncated"].to_pylist() == [False] * 5 + [True] + [False] * 3


def test_no_pair_in_conflict_is_an_error_before_any_model_is_trained(tmp_path):
    pairs = output(tmp_path / "pairs.parquet", PAIRS | {"brief": [1, 0, 1]})
    with pytest.raises(InputError, match="in none of the training pairs do kind and brief disagr"):
        write_conflicts(tmp_path / "c.parquet", tmp_path, pairs, base=None, budget={},
                        objectives=["kind", "brief"], num_prompts=9, seed=0)  # fmt: skip


def test_the_best_answer_above_both_originals_is_taken(tmp_path, conflicts, candidates):
    rewards = {
        "one two three": (1.0, 0.0), "one two four": (0.0, 1.0),  # those of "say q" have 0
        "a better answer": (1.5, 1.5), "the best answer": (1.2, 2.0),
        "la la la la la la la la la": (9.0, 9.0), "a long good answer": (0.5, 0.5),
        "a short good answer": (0.4, 0.5),
    }  # fmt: skip
    table = improved(tmp_path, conflicts, candidates, rewards)
    found = {(row["pair"], row["response"]): row for row in table.to_pylist()}
    verdicts = {key: row["verdict"] for key, row in found.items()}
    assert verdicts[0, "a better answer"] == "rewritten"
    assert verdicts[0, "the best answer"] == "taken"
    assert verdicts[1, "la la la la la la la la la"] == "collapsed: loop"
    assert verdicts[1, "a short good answer"] == "no better than its draft"
    assert verdicts[1, "a long good answer"] == "taken"
    assert found[0, "the best answer"]["implicit w0.5"] == 2.0
    assert found[0, "one two four"]["source"] == "rejected"
    facts = json.loads(table.schema.metadata[b"improvement"])
    counts = ("pairs", "prompts", "improved", "candidates", "improved_by_reward_models")
    assert [facts[name] for name in counts] == [2, 2, 2, 5, 1]
    assert facts["sources"] == {"draft": 3, "rewrite": 2}

    implicit = np.stack([[0.0] * 9, [1.0, 0.0] + [0.0] * 7])  # brief: the first is the better
    pairs = better_pairs(table, read_table(conflicts.path), ["kind", "brief"], implicit, "weaker")
    texts = read_table(candidates.path)["response"].to_pylist()
    named = [[texts[text] for text in pair] for pair in pairs.texts]
    assert named == [
        ["the best answer", "one two three"], ["the best answer", "one two four"],
        ["a long good answer", "five six seven"], ["a long good answer", "five six eight"],
    ]  # fmt: skip
    # By their labels kind has the rejected one as its weaker, and brief the chosen one.
    np.testing.assert_array_equal(pairs.counts, [[0, 1], [1, 0]] * 2)
    both = better_pairs(table, read_table(conflicts.path), ["kind", "brief"], implicit, "both")
    assert both.counts.all() and (both.texts == pairs.texts).all()


def test_each_model_is_its_own_reference_on_the_pairs_that_its_objective_decides(
    tmp_path, conflicts, candidates, monkeypatch
):
    improved(tmp_path, conflicts, candidates, {"the best answer": (1.0, 2.0)})
    texts = read_table(candidates.path)["response"].to_pylist()
    log_probs = np.arange(4.0 * len(texts)).reshape(4, -1)  # base, two models, a soup
    np.save(tmp_path / "log_probs.npy", log_probs)
    given = {}
    monkeypatch.setattr(realignment, "check_training_memory", lambda *_: None)
    monkeypatch.setattr(
        realignment, "train_stack", lambda path, examples, **how: given.update(how, rows=examples)
    )
    base = BaseModel("random:toy", "float32", "none", "{prompt}:", lora=LoraConfig(rank=2))
    train_on_improvements(
        tmp_path / "sipo", tmp_path, "models", conflicts, candidates,
        Output(tmp_path / "log_probs.npy", "", {}),
        Output(tmp_path / "improvement.parquet", "", {}),
        base=base, adapter_names=["w1", "w0"], objectives=["kind", "brief"], losers="weaker",
        objective={"beta": 1.0, "loss": "sigmoid", "label_smoothing": 0.0, "nll_weight": 0.1,
                   "nll_length": "response"},
        batch_size=1, num_microbatches=1, num_responses=2,
    )  # fmt: skip
    named = ("the best answer", "one two three", "one two four")
    better, chosen, rejected = map(texts.index, named)
    pairs = [[better, chosen], [better, rejected]]
    np.testing.assert_array_equal(given["rows"].reference, log_probs[1:3][:, pairs])
    assert [own.tolist() for own in given["candidates"]] == [[1], [0]]  # kind's weaker: rejected
    lengths = [[len(texts[text]) + 1 for text in pair] for pair in pairs]  # bytes and EOS
    assert given["rows"].response_mask[0].sum(axis=-1).tolist() == lengths
    assert given["beneath"] == "models"


def test_where_nothing_is_above_both_the_rewards_that_bind_are_named(
    tmp_path, conflicts, candidates
):
    rewards = {text: (0.0, 2.0) for text in (*DRAFTS["response"], *REWRITES["response"])}
    table = improved(tmp_path, conflicts, candidates, rewards)
    assert "taken" not in table["verdict"].to_pylist() and "implicit kind" in table.column_names
    with pytest.raises(InputError) as error:
        check_improved(tmp_path / "improvement.parquet")
    told = str(error.value)
    assert "none of 5 answers to 2 pairs in conflict is better than both of a pair's resp" in told
    assert ": 1 collapsed: loop, 2 no better than its draft, 2 not above the originals" in told
    assert ", which they fail 2 by 'kind' (2 by it alone); improvement.parquet has their" in told
    assert "config.sipo.soup_weights=''" in told
    table = improved(tmp_path, conflicts, candidates, rewards, filter="none")
    assert table["verdict"].to_pylist().count("taken") == 2


def test_a_margin_and_reward_models_in_place_of_implicit_rewards(tmp_path, conflicts, candidates):
    rewards = {"the best answer": (1.0, 1.0), "a long good answer": (0.2, 0.2)}
    table = improved(tmp_path, conflicts, candidates, rewards, margin=0.5)
    assert table["verdict"].to_pylist().count("taken") == 1
    judged = read_table(candidates.path)
    judged = judged.append_column("collapsed", pa.array([""] * judged.num_rows))
    by_models = {"a better answer": (3.0, 1.0), "one two three": (1.0, 0.5)}
    for place, name in enumerate(["kind", "brief"]):
        values = [by_models.get(text, (0.0, 0.0))[place] for text in judged["response"].to_pylist()]
        judged = judged.append_column(name, pa.array(values))
    judged = output(tmp_path / "judged.parquet", judged)
    table = improved(tmp_path, conflicts, judged, {}, filter="rewards")
    [taken] = [row for row in table.to_pylist() if row["verdict"] == "taken"]
    assert taken["response"] == "a better answer" and taken["reward kind"] == 3.0
    improved(tmp_path, conflicts, judged, {}, filter="rewards", margin=9.0)
    with pytest.raises(InputError, match=r"weights\), lower config.sipo.margin, or go wi"):
        check_improved(tmp_path / "improvement.parquet")


def test_an_answer_that_repeats_its_prompt_is_not_taken(tmp_path, conflicts, candidates):
    judged = read_table(candidates.path)
    texts = judged["response"].to_pylist()
    texts[4] = "say p and say p"  # the draft to "say p"
    judged = judged.set_column(
        judged.column_names.index("response"), "response", pa.array(texts)
    ).append_column("collapsed", pa.array([""] * len(texts)))
    judged = judged.append_column("kind", pa.array([0.0] * len(texts)))
    judged = judged.append_column("brief", pa.array([0.0] * len(texts)))
    rewards = {"say p and say p": (9.0, 9.0), "the best answer": (1.0, 1.0)}
    judged = output(tmp_path / "judged.parquet", judged)
    table = improved(tmp_path, conflicts, judged, rewards)
    verdicts = {row["response"]: row["verdict"] for row in table.to_pylist()}
    assert verdicts["say p and say p"] == "repeats the prompt"
    assert verdicts["the best answer"] == "taken"


def test_what_is_unfit_is_not_taken():
    verdicts, _ = judge(
        np.array([[9.0], [1.0]]), np.zeros((2, 1)), ["repeats the prompt", ""], ["draft"] * 2,
        ["a", "b"], 0.0,
    )  # fmt: skip
    assert verdicts == ["repeats the prompt", "taken"]
