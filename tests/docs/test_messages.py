"""Every message that docs/guide.md explains is one that the package can give."""

from __future__ import annotations

import ast
import re

import pytest
from pages import PAGES, ROOT

TROUBLE = PAGES["docs/guide.md"].partition("## Troubleshooting")[2]
QUOTED = re.findall(r"^\| `([^`]+)`", TROUBLE, re.MULTILINE)


def texts(tree: ast.AST) -> list[str]:
    """The strings of a module, with … in place of what is filled in."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%[.\d]*\w", "…", node.value))
    return found


@pytest.fixture(scope="module")
def messages() -> list[str]:
    files = (ROOT / "paretohqd_jax").rglob("*.py")
    return [text for file in files for text in texts(ast.parse(file.read_text()))]


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_of_the_guide_exists(quoted, messages):
    pattern = re.compile(".*".join(map(re.escape, quoted.split("…"))))
    assert any(pattern.search(message) for message in messages)


def test_the_guide_explains_the_likely_ones():
    assert len(QUOTED) >= 20
