"""The tables of a comparison in LaTeX, for the packages booktabs and longtable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from paretohqd_jax.evaluation.comparison_tables import (
    Efforts,
    Table,
    comparison_notes,
    comparison_tables,
    provenance_lines,
)

ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\u03c4": r"$\tau$", "\u00b1": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
MINUS = re.compile(r"(?<![\w-])-(?=\d)")  # of a number, not a hyphen
HEAD = r"% \usepackage{booktabs,longtable}"


def comparison_latex(
    comparison: Mapping[str, Any], efforts: Efforts, made_by: Mapping[str, str]
) -> str:
    """Measures down and methods across, then mean rewards by model; pages may break tables."""
    *measures, means = comparison_tables(comparison, efforts)
    comments = [*provenance_lines(made_by), *comparison_notes(comparison)]
    lines = [HEAD, *(f"% {line}" for comment in comments for line in comment.splitlines())]
    caption = (
        f"{comparison['num_prompts']} prompts; in brackets "
        f"{comparison['bootstrap']['confidence']:.0%} intervals by the bootstrap"
    )
    for table in (*map(_transposed, measures), means):
        lines += ["", *_latex(table, caption)]
    return "\n".join(lines) + "\n"


def _transposed(table: Table) -> Table:
    """Heads as rows; those that say nothing of any row are left out."""
    heads = next(iter(table.rows.values()))
    rows = {head: {name: row[head] for name, row in table.rows.items()} for head in heads}
    told = {head: row for head, row in rows.items() if any(row.values())}
    return Table(table.title, "measure", told)


def _latex(table: Table, caption: str) -> list[str]:
    head = list(next(iter(table.rows.values())))
    return [
        rf"\begin{{longtable}}{{@{{}}l{'r' * len(head)}@{{}}}}",
        rf"\caption{{{escape(f'{table.title}. {caption}.')}}}\\",
        r"\toprule",
        _row([table.corner, *head]),
        r"\midrule",
        r"\endhead",
        *(_row([name, *row.values()]) for name, row in table.rows.items()),
        r"\bottomrule",
        r"\end{longtable}",
    ]


def _row(cells: Sequence[str]) -> str:
    row = " & ".join(map(escape, cells)) + r" \\"
    return "{}" + row if row.startswith(("[", "*")) else row  # no argument of the last row


def escape(text: str) -> str:
    """The text as LaTeX prints it."""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    return MINUS.sub("$-$", escaped)
