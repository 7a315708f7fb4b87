"""Conversations as prompts: several turns, or a system message, in one text.

A prompt is a text everywhere: it is grouped by, split by, looked up. A conversation is its messages
as JSON behind a mark that no text of a person begins with, the record separator of RFC 7464; any
other prompt is what one user says. The prompts of a source are all conversations or none is, so
that text formats give them one form. Files that people read hold lists of messages instead (see
`data.messages`).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence

MARK = "\x1e"
ROLES = ("system", "user", "assistant")
NAMES = {"user": "Human", "assistant": "Assistant"}  # of HH-RLHF's dialogues
TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
# What a text may end in that has the mark of the answer's turn in it already.
ANSWER_MARK = re.compile(r"\s*(\n\nAssistant:|### Response:)\s*\Z")

Message = dict[str, str]  # {"role": one of ROLES, "content": text}


def as_prompt(messages: Sequence[Message]) -> str:
    """The messages of a conversation, the last of them the user's, as a prompt.

    One user message is its text.
    """
    plain = len(messages) == 1 and messages[0]["role"] == "user"
    if plain and not messages[0]["content"].startswith(MARK):
        return messages[0]["content"]
    return as_conversation(messages)


def as_conversation(messages: Sequence[Message]) -> str:
    """The same, where one user message is a conversation as well."""
    ordered = [{"role": message["role"], "content": message["content"]} for message in messages]
    return MARK + json.dumps(ordered, ensure_ascii=False)


def in_words(words: str, prompt: str) -> str:
    """The prompt with its last message put in words, a text with `{prompt}` in it once.

    Where the message ends in the mark of the answer's turn, that stays at the end.
    """
    *earlier, last = messages_of(prompt)
    content, *mark = ANSWER_MARK.split(last["content"], maxsplit=1)
    content = " ".join([words.replace("{prompt}", content), *filter(None, mark)])
    put = as_conversation if is_conversation(prompt) else as_prompt
    return put([*earlier, {**last, "content": content}])


def is_conversation(prompt: str) -> bool:
    """Whether a prompt is one of `as_conversation`, not a text that begins with the mark."""
    return _decoded(prompt) is not None


def messages_of(prompt: str) -> list[Message]:
    """The messages that a prompt stands for, the inverse of `as_prompt` and `as_conversation`."""
    messages = _decoded(prompt)
    return [{"role": "user", "content": prompt}] if messages is None else messages


def joined(messages: Sequence[Message]) -> list[Message]:
    """The messages with neighbours of one role as one, an empty line between their texts."""
    return [
        {"role": role, "content": "\n\n".join(message["content"] for message in neighbours)}
        for role, neighbours in itertools.groupby(messages, lambda message: message["role"])
    ]


def transcript(prompt: str) -> str:
    """The prompt for readers: a single user message as it is, a conversation as a `dialogue`."""
    messages = messages_of(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return dialogue(messages)


def dialogue(messages: Sequence[Message]) -> str:
    """The messages in HH-RLHF's form, a system message before the turns.

    "\\n\\nHuman: ...\\n\\nAssistant: ...\\n\\nHuman: ..."
    """
    turns = []
    for message in messages:
        name, content = NAMES.get(message["role"]), message["content"]
        if name:
            turns.append(f"\n\n{name}: {content}" if content else f"\n\n{name}:")
        else:
            turns.append(f"\n\n{content}" if turns else content)
    return "".join(turns)


def parse_dialogue(text: str) -> list[Message]:
    """The messages of a text in HH-RLHF's form, the inverse of `dialogue`."""
    before, *turns = TURN.split("\n\n" + text.lstrip())
    roles = {name: role for role, name in NAMES.items()}
    messages = [{"role": "system", "content": before.strip()}] if before.strip() else []
    for name, content in zip(turns[::2], turns[1::2], strict=True):
        messages.append({"role": roles[name], "content": content})
    return messages


def _decoded(prompt: str) -> list[Message] | None:
    if not prompt.startswith(MARK):
        return None
    try:
        messages = json.loads(prompt.removeprefix(MARK))
    except ValueError:
        return None
    whole = isinstance(messages, list) and all(
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in ROLES
        and isinstance(message["content"], str)
        for message in messages
    )
    return messages if whole and messages else None
