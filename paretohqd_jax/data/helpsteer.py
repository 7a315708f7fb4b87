"""NVIDIA's HelpSteer sets in their original fields (see `public`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from paretohqd_jax.data.conversations import Message, as_conversation
from paretohqd_jax.data.fields import read_number, read_records, read_text, without_empty
from paretohqd_jax.data.messages import read_messages
from paretohqd_jax.errors import InputError

SCORES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
TURN = re.compile(r"\n?<extra_id_[01]>(System|User|Assistant)(?:\n|$)")


def helpsteer_rows(table: pa.Table, source: str) -> pa.Table:
    """nvidia/HelpSteer and HelpSteer2: five scores from 0 to 4, and `overall`, their sum."""
    rows = []
    for number, row in read_records(table, ("prompt", "response", *SCORES), source):
        scores = {name: read_number(row[name], source, number, name) for name in SCORES}
        response = read_text(row["response"], source, number, "response")
        texts = {"prompt": _marked_prompt(row["prompt"], source, number), "response": response}
        overall = None if None in scores.values() else sum(scores.values())
        rows.append(texts | scores | {"overall": overall, "source_row": number})
    return without_empty(rows, ("prompt", "response"), source)


def helpsteer2_preference_pairs(table: pa.Table, source: str) -> pa.Table:
    """nvidia/HelpSteer2, `preference`: which of two responses is better, -3 (the first) to 3."""
    fields = ("prompt", "response_1", "response_2", "preference_strength")
    return _helpsteer_pairs(table, fields, source, _marked_prompt)


def helpsteer3_pairs(table: pa.Table, source: str) -> pa.Table:
    """nvidia/HelpSteer3, `preference`: the same, on conversations as lists of messages."""
    fields = ("context", "response1", "response2", "overall_preference")
    return _helpsteer_pairs(table, fields, source, _context)


def _helpsteer_pairs(
    table: pa.Table, fields: Sequence[str], source: str, read_prompt: Callable[[Any, str, int], str]
) -> pa.Table:
    rows = []
    for number, row in read_records(table, fields, source):
        first, second = (read_text(row[name], source, number, name) for name in fields[1:3])
        strength = read_number(row[fields[3]], source, number, fields[3]) or 0.0
        if not -3 <= strength <= 3:
            raise InputError(
                f"{source}: row {number}: {fields[3]} is {strength:g}, not from -3 to 3"
            )
        chosen, rejected = (second, first) if strength > 0 else (first, second)
        rows.append(
            {
                "prompt": read_prompt(row[fields[0]], source, number), "chosen": chosen,
                "rejected": rejected, "preferred": int(strength != 0), "source_row": number,
            }
        )  # fmt: skip
    return without_empty(rows, ("prompt", "chosen", "rejected"), source)


def _marked_prompt(value: Any, source: str, row: int) -> str:
    """HelpSteer's prompts: a user's words, or turns that begin with "<extra_id_1>Assistant"."""
    first, *turns = TURN.split(read_text(value, source, row, "prompt"))
    if not turns:
        return first
    messages = [{"role": "user", "content": first.strip()}] if first.strip() else []
    for name, content in zip(turns[::2], turns[1::2], strict=True):
        messages.append({"role": name.lower(), "content": content.strip()})
    if messages[-1] == {"role": "assistant", "content": ""}:  # the turn that is to come
        messages.pop()
    return as_conversation(messages) if _asks(messages) else ""


def _context(value: Any, source: str, row: int) -> str:
    messages = read_messages(value, source, row, "context")
    return as_conversation(messages) if _asks(messages) else ""


def _asks(messages: Sequence[Message]) -> bool:
    """Whether the user's words end a conversation."""
    return (
        bool(messages) and messages[-1]["role"] == "user" and messages[-1]["content"].strip() != ""
    )
