"""What README.md and the pages of docs/ hold: fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
SHELL = ("bash", "sh")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r" <<(\w+)\n.*?^\1$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: the language named at its fence, and its text."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*found) for found in BLOCK.findall(text)]


def command_lines(text: str) -> list[str]:
    """The commands of a block of shell, one a line; continued lines are joined."""
    joined = HEREDOC.sub("", text).replace("\\\n", " ")
    return [line for line in joined.splitlines() if shlex.split(line, comments=True)]
