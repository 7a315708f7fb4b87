"""Conversations as prompts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretohqd_jax.data.conversations import MARK, ROLES, as_prompt, messages_of, transcript

MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text()})


@given(st.lists(MESSAGES, min_size=1))
def test_a_prompt_holds_its_messages(messages: list[dict[str, str]]) -> None:
    assert messages_of(as_prompt(messages)) == messages


def test_one_user_message_is_its_text() -> None:
    assert as_prompt([{"role": "user", "content": "Why?"}]) == "Why?"
    assert transcript("Why?") == "Why?"
    assert transcript(as_prompt([{"role": "user", "content": MARK + "["}])) == MARK + "["


def test_a_transcript_reads_as_a_dialogue() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why?"},
    ]
    expected = "Be kind.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?"
    assert transcript(as_prompt(messages)) == expected
