from __future__ import annotations

import pyarrow as pa

from paretohqd_jax.steps.matching import better_responses
from paretohqd_jax.steps.robustness import answers_for_copies

CONSTANT = "} } }"
GROUPS = pa.Table.from_pylist(
    [
        {
            "prompt": f"prompt {i}",
            "responses": [f"good {i}", CONSTANT, f"fair {i}", f"poor {i}"],
            "scores": [2.0, 3.0, 1.0, 0.0],
        }
        for i in range(3)
    ]
)


def test_what_many_prompts_have_is_an_answer_to_none():
    answers = answers_for_copies(GROUPS, 10)
    assert {answer.prompt: answer.text for answer in answers} == {
        f"prompt {i}": f"good {i}" for i in range(3)
    }
    rows = [{"prompt": f"prompt {i}", "response": CONSTANT} for i in range(3)]
    rows += [{"prompt": f"prompt {i}", "response": f"good {i}"} for i in range(2)]
    found = answers_for_copies(pa.Table.from_pylist(rows), 10)
    assert [answer.text for answer in found][2:] == [CONSTANT], "where there is no other"
    assert {answer.text for answer in found[:2]} == {"good 0", "good 1"}


def test_prompts_and_responses_are_matched_by_the_better_ones():
    prompts, responses = better_responses(GROUPS)
    assert prompts[:2] == ["prompt 0"] * 2 and responses[:2] == ["good 0", "fair 0"]
    assert len(responses) == 6
