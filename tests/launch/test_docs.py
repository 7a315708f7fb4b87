"""The scripts run dry as docs/launching.md starts them; tests/docs opens the runs they start."""

from __future__ import annotations

import re
import sys

import pytest
from pages import PAGES, ROOT, blocks

PAGE = PAGES["docs/launching.md"]
SCRIPT = re.compile(r"^(launch/\S+\.sh)", re.MULTILINE)


def section_scripts() -> dict[str, str]:
    """The commands of each section."""
    sections = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    commands = {
        title: "".join(block.text for block in blocks(text) if block.language == "bash")
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }
    return {title: text for title, text in commands.items() if text}


SECTIONS = section_scripts()


def test_the_page_has_a_worked_example_for_each():
    assert {*SECTIONS} == {
        "One GPU", "Several processes on this machine", "TPU VM", "GKE", "Slurm",
    }  # fmt: skip
    assert all("configs/hh_llama2_7b.py" in text for text in SECTIONS.values())


@pytest.mark.parametrize("title", [title for title, text in SECTIONS.items() if "launch/" in text])
def test_scripts_run_dry(title, launch, programs):
    text, number = SCRIPT.subn(r'"$ROOT"/\1 --dry-run', SECTIONS[title])
    assert number == SECTIONS[title].count("launch/")
    page = programs("page", f"set -eu\n{text}")
    ran = launch(page, ROOT=str(ROOT), PYTHON=sys.executable)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) >= number


def test_scripts_and_variables_on_the_page_exist():
    scripts = {*re.findall(r"launch/[\w/]+\.(?:sh|yaml)", PAGE)}
    assert all((ROOT / script).is_file() for script in scripts)
    code = "".join(script.read_text() for script in (ROOT / "launch").rglob("*.sh"))
    exported = {*re.findall(r"\b([A-Z][A-Z_]+)=", "".join(SECTIONS.values()))}
    for name in exported:
        assert name.startswith("SBATCH_") or re.search(rf"\$\{{?{name}\b", code), name
