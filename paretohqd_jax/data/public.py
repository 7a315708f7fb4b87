"""The public preference sets in their original fields.

A reader takes the table as it was published and gives either scored rows (`prompt`, `response`, one
column per score) or pairs (`prompt`, `chosen`, `rejected`, one label per objective: +1 where the
chosen response is the better one, -1 where the rejected one is, 0 where neither is or none knows).
Both keep `source_row`, which counts the rows that were published. `pairs.py` turns one into the
other. Rows with an empty text are left out and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from paretohqd_jax.data.conversations import as_conversation, parse_dialogue
from paretohqd_jax.data.fields import (
    read_choice,
    read_line,
    read_list,
    read_number,
    read_record,
    read_records,
    read_text,
    without_empty,
)
from paretohqd_jax.data.helpsteer import (
    helpsteer2_preference_pairs,
    helpsteer3_pairs,
    helpsteer_rows,
)
from paretohqd_jax.data.rows import check_columns
from paretohqd_jax.data.ultrafeedback import ultrafeedback_binarized_pairs, ultrafeedback_rows
from paretohqd_jax.errors import InputError

ASSISTANT = "\n\nAssistant:"

logger = logging.getLogger(__name__)


def hh_pairs(table: pa.Table, source: str) -> pa.Table:
    """Anthropic/hh-rlhf, any folder but red-team-attempts: two dialogues that part at their end.

    Each is split at its own last "\\n\\nAssistant:", and rows whose prompts then differ are left
    out: cutting the rejected dialogue where the chosen one's prompt ends would cut it anywhere.
    What a human says after the response goes. Rows whose response follows no human's words are left
    out. Prompts are conversations, also those of one turn.
    """
    rows = []
    num_mixed = num_open = 0
    for number, row in read_records(table, ("chosen", "rejected"), source):
        (prompt, chosen), (other, rejected) = (
            _split_dialogue(row[side], source, number, side) for side in ("chosen", "rejected")
        )
        num_mixed += prompt != other
        num_open += prompt is None and other is None
        if prompt is not None and prompt == other:
            rows.append(
                {
                    "prompt": prompt, "chosen": chosen, "rejected": rejected, "preferred": 1,
                    "source_row": number,
                }
            )  # fmt: skip
    if num_mixed and not rows:
        raise InputError(
            f"{source}: chosen and rejected have different prompts in every "
            "pair; a pair is two answers to one prompt"
        )
    if num_mixed:
        logger.info("%s: %d pairs with different prompts left out", source, num_mixed)
    if num_open:
        logger.info("%s: %d pairs whose responses answer no human left out", source, num_open)
    return without_empty(rows, ("prompt", "chosen", "rejected"), source)


def _split_dialogue(text: Any, source: str, row: int, field: str) -> tuple[str | None, str]:
    """What comes before the last "\\n\\nAssistant:", None if no human's words, and the response.

    The response is without blanks at its ends. A prompt whose last words are blank is "".
    """
    messages = parse_dialogue(text) if isinstance(text, str) else []
    while messages and messages[-1]["role"] == "user":
        messages.pop()
    if not messages or messages[-1]["role"] != "assistant":
        raise InputError(f"{source}: row {row}: {field} has no {ASSISTANT!r}; is it HH-RLHF?")
    *asked, answer = messages
    prompt = None
    if asked and asked[-1]["role"] == "user":
        words = asked[-1]["content"].rstrip()
        asked[-1] = {"role": "user", "content": words}
        prompt = as_conversation(asked) if words else ""
    return prompt, answer["content"].strip()


def summarize_pairs(table: pa.Table, source: str) -> pa.Table:
    """openai/summarize_from_feedback, `comparisons`: posts, each with two summaries.

    The prompt is the post alone, in one line as RiC has it. News articles have no post and are left
    out. A post is compared several times and its rows keep one prompt, so that splits by prompt
    hold all of them on one side.
    """
    rows = []
    for number, row in read_records(table, ("info", "summaries", "choice"), source):
        choice = read_choice(row["choice"], (0, 1), source, number, "choice")
        summaries = read_list(row["summaries"], source, number, "summaries")
        if len(summaries) != 2:
            raise InputError(f"{source}: row {number}: has {len(summaries)} summaries, not 2")
        texts = [
            read_line(read_record(summary, source, number, "summaries").get("text"), source, number,
                      "summaries.text")
            for summary in summaries
        ]  # fmt: skip
        info = read_record(row["info"], source, number, "info")
        post = read_line(info.get("post"), source, number, "info.post")
        rows.append(
            {
                "prompt": post, "chosen": texts[choice], "rejected": texts[1 - choice],
                "preferred": 1, "source_row": number,
            }
        )  # fmt: skip
    return without_empty(rows, ("prompt", "chosen", "rejected"), source)


def safe_rlhf_pairs(table: pa.Table, source: str) -> pa.Table:
    """PKU-SafeRLHF (all sizes): one label for the more helpful response, one for the safer.

    `chosen` is the more helpful one, so `helpful` is +1 throughout; `harmless` is -1 in the pairs
    that are in conflict.
    """
    fields = (
        "prompt", "response_0", "response_1", "better_response_id", "safer_response_id"
    )  # fmt: skip
    rows = []
    for number, row in read_records(table, fields, source):
        prompt, *responses = (read_text(row[name], source, number, name) for name in fields[:3])
        better, safer = (
            read_choice(row[name], (0, 1), source, number, name) for name in fields[3:]
        )
        rows.append(
            {
                "prompt": prompt, "chosen": responses[better], "rejected": responses[1 - better],
                "helpful": 1, "harmless": 1 if safer == better else -1, "source_row": number,
            }
        )  # fmt: skip
    return without_empty(rows, ("prompt", "chosen", "rejected"), source)


def beavertails_rows(table: pa.Table, source: str) -> pa.Table:
    """PKU-Alignment/BeaverTails: `safe` is the share of annotators who called a response safe.

    A response is there once per annotator, and they disagree at times.
    """
    votes: dict[tuple[str, str], list[int]] = {}
    first_row: dict[tuple[str, str], int] = {}
    for number, row in read_records(table, ("prompt", "response", "is_safe"), source):
        pair = tuple(read_text(row[name], source, number, name) for name in ("prompt", "response"))
        safe = read_choice(row["is_safe"], (False, True), source, number, "is_safe")
        votes.setdefault(pair, []).append(safe)
        first_row.setdefault(pair, number)
    rows = [
        {
            "prompt": pair[0], "response": pair[1], "safe": sum(found) / len(found),
            "source_row": first_row[pair],
        }
        for pair, found in votes.items()
    ]  # fmt: skip
    return without_empty(rows, ("prompt", "response"), source)


def ric_rows(table: pa.Table, source: str) -> pa.Table:
    """The scored sets of RiC, such as Ray2333/RiC_harmless_helpful; keeps `score1`, `score2`, ...

    The prompt is cut before its final "\\n\\nAssistant:", which config.data.prompt_format adds.
    """
    check_columns(table, ("prompt", "response", "score1"), source)
    scores = [name for name in table.column_names if name.removeprefix("score").isdecimal()]
    logger.warning(
        "%s: the scores were rounded to 0.1 before they were normalised, so many rows tie; for "
        "ParetoHqD score the rows again (a run does)", source,
    )  # fmt: skip
    rows = [
        {
            "prompt": read_text(row["prompt"], source, number, "prompt")
            .rstrip().removesuffix(ASSISTANT).rstrip(),
            "response": read_text(row["response"], source, number, "response"),
            "source_row": number,
        }
        | {name: read_number(row[name], source, number, name) for name in scores}
        for number, row in read_records(table, ("prompt", "response", *scores), source)
    ]  # fmt: skip
    return without_empty(rows, ("prompt", "response"), source)


# config.data.format: how to read a table that was published in fields of its own.
PUBLIC_FORMATS: dict[str, Callable[[pa.Table, str], pa.Table]] = {
    "hh": hh_pairs,
    "summarize": summarize_pairs,
    "safe_rlhf": safe_rlhf_pairs,
    "beavertails": beavertails_rows,
    "helpsteer": helpsteer_rows,
    "helpsteer2_preference": helpsteer2_preference_pairs,
    "helpsteer3": helpsteer3_pairs,
    "ultrafeedback": ultrafeedback_rows,
    "ultrafeedback_binarized": ultrafeedback_binarized_pairs,
    "ric": ric_rows,
}
