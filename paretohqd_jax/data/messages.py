"""Lists of messages in people's tables: read as prompts and responses, and written for prompts.

A message is a record of `role` and `content`; ShareGPT calls them `from` and `value`, its roles
"human" and "gpt". Other keys are not read. A table may hold, as TRL's conversational sets do:

  prompt, chosen, rejected   each side what follows the prompt, or the conversation with it
  chosen, rejected           whole conversations; the prompt is what comes before their last message
  prompt, response           or `completion` for `response`
  messages                   or `conversations`: the response is the last message

A text in a column `system` is the system message of a conversation that has none.
Any of these columns may hold texts beside lists in others: a user's message as prompt, an
assistant's as response.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from paretohqd_jax.data.conversations import (
    ROLES,
    Message,
    as_conversation,
    is_conversation,
    messages_of,
)
from paretohqd_jax.errors import InputError

logger = logging.getLogger(__name__)
ALIASES = {"human": "user", "gpt": "assistant"}
KEYS = ({"role", "content"}, {"from", "value"})
WHOLE = ("messages", "conversations")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def read_conversations(table: pa.Table, source: str) -> pa.Table:
    """The table with texts for lists of messages, in columns `prompt` and `response` or both sides.

    Rows whose last message is not an assistant's answer to a user, and pairs whose sides differ
    before it, are left out and counted. A table without lists of messages is left as it is, but for
    the name of `completion`.

    Raises:
      InputError: a message cannot be read, a text is missing, or no row is left; it names the row.
    """
    sides = _sides(table)
    names = [name for name in ("prompt", "system", *sides) if name in table.column_names]
    if not any(_holds_messages(table[name].type) for name in names):
        if list(sides) == ["completion"]:
            return table.rename_columns({"completion": "response"})
        return table
    numbers = table["source_row"].to_pylist() if "source_row" in table.column_names else None
    kept, rows, num_open, num_apart = [], [], 0, 0
    for place, row in enumerate(table.select(names).to_pylist()):
        number = place if numbers is None else numbers[place]
        wholes = [_with_system(row, _whole(row, side, source, number)) for side in sides]
        parted = [split_response(whole) for whole in wholes]
        prompts = [prompt for prompt, _ in parted]
        if not all(prompts):
            num_open += 1
        elif any(_bare(prompt) != _bare(prompts[0]) for prompt in prompts):
            num_apart += 1
        else:
            texts = {sides[side]: text for side, (_, text) in zip(sides, parted, strict=True)}
            _check_texts(prompts[0], texts, source, number)
            rows.append({"prompt": as_conversation(prompts[0])} | texts)
            kept.append(place)
    reasons = {
        "whose last message is not an assistant's answer to a user": num_open,
        "whose conversations differ before the last message": num_apart,
    }
    found = [f"{count} rows {reason}" for reason, count in reasons.items() if count]
    if not rows:
        raise InputError(
            f"{source}: no row can be used: {', '.join(found)}; a column that holds what comes "
            "before must be named prompt (config.data.columns=prompt=NAME)"
        )
    for each in found:
        logger.info("%s: %s left out", source, each)
    others = [name for name in table.column_names if name not in ("prompt", *sides)]
    texts = pa.Table.from_pylist(rows)
    for name in others:
        texts = texts.append_column(name, table[name].take(kept))
    return texts


def with_messages(table: pa.Table) -> pa.Table:
    """The table as people read it: its prompts as lists of messages, if one is a conversation."""
    column = table["prompt"] if "prompt" in table.column_names else None
    if column is None or not _holds_conversations(column):
        return table
    prompts = pa.array([messages_of(prompt) for prompt in column.to_pylist()], MESSAGES)
    return table.set_column(table.column_names.index("prompt"), "prompt", prompts)


def all_conversations(table: pa.Table) -> pa.Table:
    """The table with conversations for all of its prompts, if one is a conversation."""
    column = table["prompt"]
    if not _holds_conversations(column):
        return table
    prompts = [as_conversation(messages_of(prompt)) for prompt in column.to_pylist()]
    return table.set_column(table.column_names.index("prompt"), "prompt", pa.array(prompts))


def read_messages(value: Any, source: str, row: int, field: str) -> list[Message]:
    """The messages in a field: a list of records, or a single one; none if it is missing.

    Raises InputError naming the first that is no message of text by one of ROLES.
    """
    values = [value] if isinstance(value, dict) else value or []
    if not isinstance(values, list):
        raise InputError(f"{source}: row {row}: {field} is {value!r:.80}, not a list of messages")
    return [
        _message(each, f"{source}: row {row}: {field}[{place}]")
        for place, each in enumerate(values)
    ]


def split_response(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """What comes before the last message, and its text; nothing unless it answers a user."""
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        return [], ""
    return list(messages[:-1]), messages[-1]["content"]


def _sides(table: pa.Table) -> dict[str, str]:
    """The columns that end in a response, and what these responses are called here."""
    names = set(table.column_names)
    for sides in (["chosen", "rejected"], ["response"]):
        if names.issuperset(sides):
            return dict(zip(sides, sides, strict=True))
    for name in ("completion", *WHOLE):
        if name in names and (name == "completion" or _holds_messages(table[name].type)):
            return {name: "response"}
    return {}


def _holds_messages(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_struct(kind) and any(
        keys <= {field.name for field in kind.fields} for keys in KEYS
    )


def _holds_conversations(column: pa.ChunkedArray) -> bool:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return is_text and any(map(is_conversation, filter(None, column.to_pylist())))


def _whole(row: dict[str, Any], side: str, source: str, number: int) -> list[Message]:
    """The conversation that ends in a response: what the side holds, after the prompt if need be.

    A side may repeat the prompt, with or without its system message. A prompt that is a text may be
    any of the user's turns.
    """
    asked = row.get("prompt") if side not in WHOLE else None
    prompt = _as_messages(asked, "user", source, number, "prompt")
    answer = _as_messages(row[side], "assistant", source, number, side)
    is_whole = any(message["role"] == "user" for message in answer)
    if not answer or not (prompt or is_whole or "prompt" not in row):
        empty = "prompt" if answer else side
        raise InputError(f"{source}: row {number}: {empty} is empty; remove such rows")
    if not prompt or not is_whole:
        return prompt + answer
    (system, turns), (own_system, own_turns) = _parted(prompt), _parted(answer)
    same_system = not system or not own_system or _bare(system) == _bare(own_system)
    if same_system and _bare(own_turns[: len(turns)]) == _bare(turns):
        return (own_system or system) + own_turns
    if isinstance(asked, str) and _bare(turns)[0] in _bare(own_turns):
        return answer
    if not own_system and {prompt[-1]["role"], answer[0]["role"]} == {"user", "assistant"}:
        return prompt + answer
    raise InputError(
        f"{source}: row {number}: {side} is not a conversation that goes on from prompt; give the "
        "same messages in both, or leave prompt out (config.data.columns=unused=prompt)"
    )


def _with_system(row: dict[str, Any], messages: list[Message]) -> list[Message]:
    system = row.get("system")
    if not isinstance(system, str) or not system.strip() or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _as_messages(value: Any, role: str, source: str, row: int, field: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value.strip() else []
    return read_messages(value, source, row, field)


def _parted(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """A leading system message, and the turns."""
    count = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:count], messages[count:]


def _bare(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Messages to be compared, without blanks at their ends."""
    return [(message["role"], message["content"].strip()) for message in messages]


def _check_texts(
    prompt: Sequence[Message], responses: dict[str, str], source: str, number: int
) -> None:
    for name, text in {"prompt": prompt[-1]["content"], **responses}.items():
        if not text.strip():
            raise InputError(
                f"{source}: row {number}: {name} is empty; remove such rows or fill them in"
            )


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise InputError(f"{place} is {message!r:.80}, not a record of role and content")
    role = message.get("role") or message.get("from")
    role = ALIASES.get(role.lower(), role.lower()) if isinstance(role, str) else role
    if role not in ROLES:
        raise InputError(
            f"{place} has the role {role!r}; {', '.join(ROLES)} are read, so leave conversations "
            "with others, such as tools, out"
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise InputError(f"{place} calls tools; leave such conversations out")
    content = message.get("content")
    content = message.get("value") if content is None else content
    return {"role": role, "content": _content(content, place)}


def _content(content: Any, place: str) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(f"{place} has the content {content!r:.80}, not text")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InputError(f"{place} has a part {kind!r:.80}; only parts of type 'text' are read")
    return "".join(part["text"] for part in content)
