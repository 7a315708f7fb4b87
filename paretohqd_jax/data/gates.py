"""Gates: conditions on the scores of a row, without which it is not fit to learn from.

They are written "relevance>=0.3": a column, one of >=, <=, >, <, and a number.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import source_rows
from paretohqd_jax.errors import InputError

HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
WRITTEN = re.compile(r"\s*(?P<name>[^<>]*[^<>=\s])\s*(?P<comparison>[<>]=?)\s*(?P<bound>\S+)\s*")


class Gate(NamedTuple):
    """A row passes if its value in the column `name` stands in this relation to `bound`."""

    name: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{str(self.bound).removesuffix('.0')}"


def parse_gates(texts: Sequence[str], option: str = "config.select.gates") -> list[Gate]:
    """The gates that are written in `texts`, each once.

    Raises:
      InputError: one is not written like "relevance>=0.3"; `option` begins the message.
    """
    gates = []
    for text in texts:
        match = WRITTEN.fullmatch(text) if isinstance(text, str) else None
        try:
            bound = float(match["bound"]) if match else math.nan
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise InputError(
                f"{option}: {text!r} is no gate; write a name, one of {', '.join(HOLDS)}, and a "
                "number, such as 'relevance>=0.3'"
            )
        gates.append(Gate(match["name"], match["comparison"], bound))
    return list(dict.fromkeys(gates))


def failures(table: pa.Table, gates: Sequence[Gate], source: str | os.PathLike[str]) -> np.ndarray:
    """Which rows fail which gate, bool `[num_gates, num_rows]`.

    Raises:
      InputError: a gate names no column of `table`, or a value there is no finite number.
    """
    failed = np.zeros((len(gates), table.num_rows), bool)
    for number, gate in enumerate(gates):
        values = rewards_matrix(table, [gate.name], source, source_rows(table))[:, 0]
        in_float32 = pa.types.is_float32(table[gate.name].type)  # where 0.3 is another number
        bound = float(np.float32(gate.bound)) if in_float32 else gate.bound
        failed[number] = ~HOLDS[gate.comparison](values, bound)
    return failed


def count_failures(gates: Sequence[Gate], failed: np.ndarray) -> dict[str, dict[str, int]]:
    """By gate as text: how many rows `failed` it, and how many `failed_alone`, no other gate.

    `failed` is bool `[num_gates, num_rows]`.
    """
    alone = failed & (failed.sum(axis=0) == 1)
    return {
        str(gate): {"failed": int(rows.sum()), "failed_alone": int(only.sum())}
        for gate, rows, only in zip(gates, failed, alone, strict=True)
    }


def in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What gates took, for messages."""
    return ", ".join(
        f"{gate} takes {count['failed']} ({count['failed_alone']} alone)"
        for gate, count in counts.items()
    )
