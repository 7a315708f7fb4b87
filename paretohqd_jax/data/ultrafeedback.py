"""UltraFeedback, as it was published and as pairs, in its original fields (see `public`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from paretohqd_jax.data.fields import (
    read_list,
    read_number,
    read_record,
    read_records,
    read_text,
    without_empty,
)
from paretohqd_jax.data.messages import read_conversations
from paretohqd_jax.data.rows import check_columns

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
POOR = 2.0  # a mean rating, of 1 to 5, that no overall score of 10 goes with

logger = logging.getLogger(__name__)


def ultrafeedback_rows(table: pa.Table, source: str) -> pa.Table:
    """openbmb/UltraFeedback: four completions per instruction, a rating per aspect.

    Ratings are texts there ("5", "N/A"). They become numbers, and "N/A" is missing: as text "N/A"
    would be greater than any rating. An overall score of 10 beside poor ratings was a 1, whose
    "1/10" was misread; it becomes 1.
    """
    rows = []
    num_misread = 0
    for number, row in read_records(table, ("instruction", "completions"), source):
        prompt = read_text(row["instruction"], source, number, "instruction")
        for each in read_list(row["completions"], source, number, "completions"):
            completion = read_record(each, source, number, "completions")
            annotations = read_record(completion.get("annotations"), source, number, "annotations")
            scores = {
                aspect: _rating(annotations.get(aspect), source, number, aspect)
                for aspect in ASPECTS
            }
            overall, fine = (
                read_number(completion.get(name), source, number, name)
                for name in ("overall_score", "fine-grained_score")
            )
            if overall == 10 and _is_poor(fine, scores.values()):
                overall = 1.0
                num_misread += 1
            response = read_text(completion.get("response"), source, number, "completions.response")
            texts = {"prompt": prompt, "response": response}
            rows.append(texts | scores | {"overall": overall, "source_row": number})
    if num_misread:
        logger.warning(
            "%s: %d overall scores of 10 beside ratings of %g or less were misread in the set and "
            "are taken as 1", source, num_misread, POOR,
        )  # fmt: skip
    return without_empty(rows, ("prompt", "response"), source)


def _is_poor(fine_grained: float | None, ratings: Iterable[float | None]) -> bool:
    """Whether the mean rating, on 1 to 5, is poor: as published, or of the ratings there are."""
    known = [rating for rating in ratings if rating is not None]
    mean = fine_grained or (sum(known) / len(known) if known else None)
    return mean is not None and mean <= POOR


def _rating(annotation: Any, source: str, row: int, aspect: str) -> float | None:
    rating = read_record(annotation, source, row, aspect).get("Rating")
    return None if rating in (None, "N/A") else read_number(rating, source, row, f"{aspect}.Rating")


def ultrafeedback_binarized_pairs(table: pa.Table, source: str) -> pa.Table:
    """HuggingFaceH4/ultrafeedback_binarized, trl-lib's, and others in these fields.

    Each side is a conversation with its score; where the scores tie, neither is preferred.
    """
    check_columns(table, ("chosen", "rejected", "score_chosen", "score_rejected"), source)
    numbered = table.append_column("source_row", pa.array(range(table.num_rows), pa.int64()))
    pairs = read_conversations(numbered, source)
    check_columns(pairs, ("prompt",), source)
    rows = []
    for row in pairs.to_pylist():
        better, worse = (
            read_number(row[name], source, row["source_row"], name)
            for name in ("score_chosen", "score_rejected")
        )
        known = better is not None and worse is not None
        texts = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        label = (better > worse) - (better < worse) if known else 0
        rows.append(texts | {"preferred": label, "source_row": row["source_row"]})
    return without_empty(rows, ("prompt", "chosen", "rejected"), source)
