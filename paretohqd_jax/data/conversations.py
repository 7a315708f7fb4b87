"""Conversations as prompts: several turns, or a system message, in one text.

A prompt is a text everywhere: it is grouped by, split by, looked up. A prompt of one user message
is that message's text. Any other conversation is its messages as JSON behind a mark that no text of
a person begins with, the record separator of RFC 7464. Files of ours that people read hold lists of
messages instead (see `rows.write_table`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

MARK = "\x1e"
ROLES = ("system", "user", "assistant")
NAMES = {"user": "Human", "assistant": "Assistant"}  # of HH-RLHF's dialogues

Message = dict[str, str]  # {"role": one of ROLES, "content": text}


def as_prompt(messages: Sequence[Message]) -> str:
    """The messages of a conversation, the last of them the user's, as a prompt."""
    plain = len(messages) == 1 and messages[0]["role"] == "user"
    if plain and not messages[0]["content"].startswith(MARK):
        return messages[0]["content"]
    ordered = [{"role": message["role"], "content": message["content"]} for message in messages]
    return MARK + json.dumps(ordered, ensure_ascii=False)


def messages_of(prompt: str) -> list[Message]:
    """The messages that a prompt stands for, the inverse of `as_prompt`."""
    if not prompt.startswith(MARK):
        return [{"role": "user", "content": prompt}]
    return json.loads(prompt.removeprefix(MARK))


def transcript(prompt: str) -> str:
    """The prompt for readers: a single user message as it is, a conversation in HH-RLHF's form.

    "\\n\\nHuman: ...\\n\\nAssistant: ...\\n\\nHuman: ...", a system message before it.
    """
    messages = messages_of(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    turns = (
        f"\n\n{NAMES[message['role']]}: {message['content']}"
        if message["role"] in NAMES
        else message["content"]
        for message in messages
    )
    return "".join(turns)
