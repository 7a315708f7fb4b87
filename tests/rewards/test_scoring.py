from __future__ import annotations

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.data.conversations import as_conversation
from paretohqd_jax.errors import InputError
from paretohqd_jax.rewards.scoring import resolve_scorer, score

PROMPTS = ["a", "b", "a", "b", "c", "a", "c"]
RESPONSES = ["one", "one", "one", "two words", "now three words", "one", "x"]
DISTINCT_PAIRS = 5


def letters(prompts, responses):
    return np.array([100 * ord(p[:1]) + len(r) for p, r in zip(prompts, responses, strict=True)])


@pytest.fixture
def scorers(monkeypatch):
    """A module of scorers as a user might write one; `calls` collects the batches of `letters`."""
    module = types.ModuleType("my_scorers")
    module.calls, module.kill_at = [], None

    def recorded(prompts, responses):
        if len(module.calls) == module.kill_at:
            raise KeyboardInterrupt
        module.calls.append(list(zip(prompts, responses, strict=True)))
        return letters(prompts, responses)

    module.letters = recorded
    module.not_a_function = 3
    monkeypatch.setitem(sys.modules, "my_scorers", module)
    return module


def test_every_row_gets_its_own_reward(scorers):
    rewards = score(PROMPTS, RESPONSES, ["my_scorers:letters", "brief"], batch_size=1)
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards[:, 0], letters(PROMPTS, RESPONSES))
    np.testing.assert_allclose(rewards[:, 1], [-np.log(1 + len(r.split())) for r in RESPONSES])


def test_identical_pairs_are_scored_once(scorers):
    score(PROMPTS, RESPONSES, ["my_scorers:letters"], batch_size=1)
    scored = [pair for batch in scorers.calls for pair in batch]
    assert len(scored) == len(set(scored)) == DISTINCT_PAIRS
    assert [len(batch) for batch in scorers.calls] == [4, 1]


def test_functions_read_conversations_as_transcripts(scorers):
    turns = [("user", "hi"), ("assistant", "ho"), ("user", "he")]
    asked = [{"role": role, "content": content} for role, content in turns]
    prompts = [as_conversation(asked[:1]), as_conversation(asked), "hi {x}"]
    score(prompts, ["r", "r", "r"], ["my_scorers:letters"])
    assert {prompt for batch in scorers.calls for prompt, _ in batch} == {
        "hi", "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: he", "hi {x}"
    }  # fmt: skip


def test_rewards_are_not_rounded(scorers):
    scorers.letters = lambda prompts, responses: np.full(len(prompts), 1 / 3)
    assert score(["p"], ["r"], ["my_scorers:letters"])[0, 0] == np.float32(1 / 3)


def test_no_rows():
    assert score([], [], ["brief", "brief"]).shape == (0, 2)


def test_killed_run_resumes_with_the_rest(scorers, tmp_path):
    whole = score(PROMPTS, RESPONSES, ["my_scorers:letters"], batch_size=1)
    scorers.calls.clear()
    scorers.kill_at = 1
    with pytest.raises(KeyboardInterrupt):
        score(PROMPTS, RESPONSES, ["my_scorers:letters"], batch_size=1, store=tmp_path)
    scorers.kill_at = None
    scorers.calls.clear()
    resumed = score(PROMPTS, RESPONSES, ["my_scorers:letters"], batch_size=1, store=tmp_path)
    assert len(scorers.calls) == 1  # the last of two shards
    np.testing.assert_array_equal(resumed, whole)


def test_kept_scores_of_other_texts_or_objectives_are_not_taken(scorers, tmp_path):
    score(PROMPTS, RESPONSES, ["my_scorers:letters"], store=tmp_path)
    changed = [*RESPONSES[:-1], "something else"]
    np.testing.assert_array_equal(
        score(PROMPTS, changed, ["my_scorers:letters"], store=tmp_path)[:, 0],
        letters(PROMPTS, changed),
    )
    scorers.negative = lambda prompts, responses: -letters(prompts, responses)
    np.testing.assert_array_equal(
        score(PROMPTS, RESPONSES, ["my_scorers:negative"], store=tmp_path)[:, 0],
        -letters(PROMPTS, RESPONSES),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "breif",
            r"unknown reward model 'breif'; did you mean brief\? use one of brief, echo, positi",
        ),
        ("no_such_module:f", r"cannot import no_such_module"),
        (".relative:f", r"cannot import .relative"),
        ("my_scorers:nothing", r"my_scorers has no function 'nothing'"),
        ("my_scorers:not_a_function", r"my_scorers has no function 'not_a_function'"),
        ("my_scorers:", r"name a function of yours"),
        ("broken_scorers:f", r"cannot import broken_scorers \(invalid syntax"),
    ],
)
def test_unknown_scorers(scorers, tmp_path, monkeypatch, name, message):
    (tmp_path / "broken_scorers.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        resolve_scorer(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\) for 3 rows"),
        ([[1.0], [2.0], [3.0]], r"shape \(3, 1\)"),
        (None, r"shape \(\)"),
        ([1.0, [2.0, 3.0], 4.0], r"no array"),
        (["1", "2", "3"], r"<U1 values.*row 0 \('one'\).*must return numbers"),
        ([1.0, float("nan"), 3.0], r"nan for row 1 \('two'\)"),
        ([1.0, 2.0, float("inf")], r"inf for row 2 \('six'\)"),
        ([1.0, 1e300, 2.0], r"1e\+300 for row 1"),
        (
            [2**60, 1, 2**60 + 1],
            r"1152921504606846977 for row 2 .*an integer that float32 does not",
        ),
    ],
)
def test_bad_rewards_name_scorer_row_and_text(scorers, tmp_path, values, message):
    scorers.letters = lambda prompts, responses: values
    with pytest.raises(InputError, match=message) as caught:
        score(
            ["p"] * 3,
            ["one", "two", "six"],
            ["my_scorers:letters"],
            store=tmp_path,
        )
    assert "'my_scorers:letters'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_row_named_is_the_row_of_the_data_not_of_the_batch(scorers):
    scorers.letters = lambda prompts, responses: [
        float("nan") if r == "bad" * 20 else 0.0 for r in responses
    ]
    responses = ["good", "good", "good", "fine", "bad" * 20]
    with pytest.raises(InputError, match=r"row 4 \('(bad)+b'\.\.\.\)"):
        score(["p"] * 5, responses, ["my_scorers:letters"], batch_size=1)


def test_rows_are_named_as_in_their_source(scorers):
    scorers.letters = lambda prompts, responses: [
        float("inf") if r == "c" else 0 for r in responses
    ]
    message = r"^my/rows.csv: objective 'my_scorers:letters': .* inf for row 17 \('c'\)"
    with pytest.raises(InputError, match=message):
        score(
            ["p"] * 4, ["a", "a", "b", "c"], ["my_scorers:letters"],
            batch_size=1, source="my/rows.csv", row_ids=[3, 5, 8, 17],
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_jax_arrays_of_any_number_type_are_fine(scorers, dtype):
    scorers.letters = lambda prompts, responses: jnp.arange(len(prompts), dtype=dtype)
    rewards = score(["p"] * 3, ["a", "b", "c"], ["my_scorers:letters"])
    np.testing.assert_array_equal(rewards[:, 0], [0, 1, 2])
