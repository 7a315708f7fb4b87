"""Conversations as prompts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretohqd_jax.data.conversations import (
    MARK,
    ROLES,
    as_conversation,
    as_prompt,
    dialogue,
    messages_of,
    parse_dialogue,
    transcript,
)

MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text()})


@given(st.lists(MESSAGES, min_size=1))
def test_a_prompt_holds_its_messages(messages: list[dict[str, str]]) -> None:
    assert messages_of(as_prompt(messages)) == messages
    assert messages_of(as_conversation(messages)) == messages


@given(st.text())
def test_a_text_stands_for_itself(text: str) -> None:
    assert messages_of(MARK + text) == [{"role": "user", "content": MARK + text}]


@given(st.lists(st.sampled_from(["", "a", " b", "c\n\nd", "Human: e", "ü\u2028"]), min_size=1))
def test_a_dialogue_is_parsed_back(contents: list[str]) -> None:
    turns = [
        {"role": ROLES[1 + number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    assert parse_dialogue(dialogue(turns)) == turns
    told = [{"role": "system", "content": "Be kind."}, *turns]
    assert parse_dialogue(dialogue(told)) == told


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
