"""The public preference sets in their original fields.

A reader takes the table as it was published and gives either scored rows (`prompt`, `response`, one
column per score) or pairs (`prompt`, `chosen`, `rejected`, one label per objective: +1 where the
chosen response is the better one, -1 where the rejected one is, 0 where neither is or none knows).
Both keep `source_row`, which counts the rows that were published. `pairs.py` turns one into the
other. Rows with an empty text are left out and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from paretohqd_jax.data.rows import check_columns
from paretohqd_jax.errors import InputError

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK = ("instruction_following", "honesty", "truthfulness", "helpfulness")
ASSISTANT = "\n\nAssistant:"

logger = logging.getLogger(__name__)
Kind = TypeVar("Kind", str, list, dict)


def hh_pairs(table: pa.Table, source: str) -> pa.Table:
    """Anthropic/hh-rlhf, any folder but red-team-attempts: two dialogues that part at their end.

    Each is split at its own last "\\n\\nAssistant:", and rows whose prompts then differ are left
    out: cutting the rejected dialogue where the chosen one's prompt ends would cut it anywhere.
    """
    rows = []
    num_mixed = 0
    for number, row in _records(table, ("chosen", "rejected"), source):
        (prompt, chosen), (other, rejected) = (
            _split_dialogue(row[side], source, number, side) for side in ("chosen", "rejected")
        )
        num_mixed += prompt != other
        if prompt == other:
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
    return _without_empty(rows, ("prompt", "chosen", "rejected"), source)


def _split_dialogue(text: Any, source: str, row: int, field: str) -> tuple[str, str]:
    """What comes before the last "\\n\\nAssistant:" and after it, without blanks at the ends."""
    prompt, found, response = text.rpartition(ASSISTANT) if isinstance(text, str) else ("", "", "")
    if not found:
        raise InputError(f"{source}: row {row}: {field} has no {ASSISTANT!r}; is it HH-RLHF?")
    return prompt.rstrip(), response.strip()


def summarize_pairs(table: pa.Table, source: str) -> pa.Table:
    """openai/summarize_from_feedback, `comparisons`: posts, each with two summaries.

    The prompt is the post alone, in one line as RiC has it. News articles have no post and are left
    out. A post is compared several times and its rows keep one prompt, so that splits by prompt
    hold all of them on one side.
    """
    rows = []
    for number, row in _records(table, ("info", "summaries", "choice"), source):
        choice = _one_of(row["choice"], (0, 1), source, number, "choice")
        summaries = _list(row["summaries"], source, number, "summaries")
        if len(summaries) != 2:
            raise InputError(f"{source}: row {number}: has {len(summaries)} summaries, not 2")
        texts = [
            _one_line(_record(summary, source, number, "summaries").get("text"), source, number,
                      "summaries.text")
            for summary in summaries
        ]  # fmt: skip
        info = _record(row["info"], source, number, "info")
        post = _one_line(info.get("post"), source, number, "info.post")
        rows.append(
            {
                "prompt": post, "chosen": texts[choice], "rejected": texts[1 - choice],
                "preferred": 1, "source_row": number,
            }
        )  # fmt: skip
    return _without_empty(rows, ("prompt", "chosen", "rejected"), source)


def safe_rlhf_pairs(table: pa.Table, source: str) -> pa.Table:
    """PKU-SafeRLHF (all sizes): one label for the more helpful response, one for the safer.

    `chosen` is the more helpful one, so `helpful` is +1 throughout; `harmless` is -1 in the pairs
    that are in conflict.
    """
    fields = (
        "prompt", "response_0", "response_1", "better_response_id", "safer_response_id"
    )  # fmt: skip
    rows = []
    for number, row in _records(table, fields, source):
        prompt, *responses = (_text(row[name], source, number, name) for name in fields[:3])
        better, safer = (_one_of(row[name], (0, 1), source, number, name) for name in fields[3:])
        rows.append(
            {
                "prompt": prompt, "chosen": responses[better], "rejected": responses[1 - better],
                "helpful": 1, "harmless": 1 if safer == better else -1, "source_row": number,
            }
        )  # fmt: skip
    return _without_empty(rows, ("prompt", "chosen", "rejected"), source)


def beavertails_rows(table: pa.Table, source: str) -> pa.Table:
    """PKU-Alignment/BeaverTails: `safe` is the share of annotators who called a response safe.

    A response is there once per annotator, and they disagree at times.
    """
    votes: dict[tuple[str, str], list[int]] = {}
    first_row: dict[tuple[str, str], int] = {}
    for number, row in _records(table, ("prompt", "response", "is_safe"), source):
        pair = tuple(_text(row[name], source, number, name) for name in ("prompt", "response"))
        safe = _one_of(row["is_safe"], (False, True), source, number, "is_safe")
        votes.setdefault(pair, []).append(safe)
        first_row.setdefault(pair, number)
    rows = [
        {
            "prompt": pair[0], "response": pair[1], "safe": sum(found) / len(found),
            "source_row": first_row[pair],
        }
        for pair, found in votes.items()
    ]  # fmt: skip
    return _without_empty(rows, ("prompt", "response"), source)


def helpsteer_rows(table: pa.Table, source: str) -> pa.Table:
    """nvidia/HelpSteer and HelpSteer2: five scores from 0 to 4, and `overall`, their sum."""
    rows = []
    for number, row in _records(table, ("prompt", "response", *HELPSTEER), source):
        scores = {name: _number(row[name], source, number, name) for name in HELPSTEER}
        texts = {name: _text(row[name], source, number, name) for name in ("prompt", "response")}
        overall = None if None in scores.values() else sum(scores.values())
        rows.append(texts | scores | {"overall": overall, "source_row": number})
    return _without_empty(rows, ("prompt", "response"), source)


def ultrafeedback_rows(table: pa.Table, source: str) -> pa.Table:
    """openbmb/UltraFeedback: four completions per instruction, a rating per aspect.

    Ratings are texts there ("5", "N/A"). They become numbers, and "N/A" is missing: as text "N/A"
    would be greater than any rating.
    """
    rows = []
    for number, row in _records(table, ("instruction", "completions"), source):
        prompt = _text(row["instruction"], source, number, "instruction")
        for each in _list(row["completions"], source, number, "completions"):
            completion = _record(each, source, number, "completions")
            annotations = _record(completion.get("annotations"), source, number, "annotations")
            scores = {
                aspect: _rating(annotations.get(aspect), source, number, aspect)
                for aspect in ULTRAFEEDBACK
            }
            overall = _number(completion.get("overall_score"), source, number, "overall_score")
            response = _text(completion.get("response"), source, number, "completions.response")
            texts = {"prompt": prompt, "response": response}
            rows.append(texts | scores | {"overall": overall, "source_row": number})
    return _without_empty(rows, ("prompt", "response"), source)


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
            "prompt": _text(row["prompt"], source, number, "prompt")
            .rstrip().removesuffix(ASSISTANT).rstrip(),
            "response": _text(row["response"], source, number, "response"), "source_row": number,
        }
        | {name: _number(row[name], source, number, name) for name in scores}
        for number, row in _records(table, ("prompt", "response", *scores), source)
    ]  # fmt: skip
    return _without_empty(rows, ("prompt", "response"), source)


# config.data.format: how to read a table that was published in fields of its own.
PUBLIC_FORMATS: dict[str, Callable[[pa.Table, str], pa.Table]] = {
    "hh": hh_pairs,
    "summarize": summarize_pairs,
    "safe_rlhf": safe_rlhf_pairs,
    "beavertails": beavertails_rows,
    "helpsteer": helpsteer_rows,
    "ultrafeedback": ultrafeedback_rows,
    "ric": ric_rows,
}


def _records(
    table: pa.Table, fields: Sequence[str], source: str
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, once `fields` are known to be there."""
    check_columns(table, fields, source)
    return enumerate(table.select(fields).to_pylist())


def _without_empty(rows: list[dict[str, Any]], texts: Sequence[str], source: str) -> pa.Table:
    """The rows whose texts say something, as a table."""
    kept = [row for row in rows if all(row[name].strip() for name in texts)]
    if len(kept) < len(rows):
        logger.info("%s: %d rows with an empty text left out", source, len(rows) - len(kept))
    if not kept:
        raise InputError(f"{source}: no row has a {', '.join(texts)}; is config.data.format right?")
    return pa.Table.from_pylist(kept)


def _one_line(text: Any, source: str, row: int, field: str) -> str:
    return _text(text, source, row, field).replace("\n", " ").strip()


def _text(value: Any, source: str, row: int, field: str) -> str:
    return _of_kind(value, str, "text", source, row, field)


def _list(value: Any, source: str, row: int, field: str) -> list[Any]:
    return _of_kind(value, list, "a list", source, row, field)


def _record(value: Any, source: str, row: int, field: str) -> dict[str, Any]:
    return _of_kind(value, dict, "a record", source, row, field)


def _of_kind(value: Any, kind: type[Kind], name: str, source: str, row: int, field: str) -> Kind:
    """The value, which is empty where it is missing."""
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{source}: row {row}: {field} is {value!r:.80}, not {name}")
    return kind() if value is None else value


def _one_of(value: Any, valid: tuple[int, int], source: str, row: int, field: str) -> int:
    if value not in valid:
        raise InputError(f"{source}: row {row}: {field} is {value!r}, not {valid[0]} or {valid[1]}")
    return int(value)


def _number(value: Any, source: str, row: int, field: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{source}: row {row}: {field} is {value!r}, not a number") from None


def _rating(annotation: Any, source: str, row: int, aspect: str) -> float | None:
    rating = _record(annotation, source, row, aspect).get("Rating")
    return None if rating in (None, "N/A") else _number(rating, source, row, f"{aspect}.Rating")
