"""The API reference is built from docstrings, and these say what there is to say."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT

from paretohqd_jax import pareto


@pytest.mark.slow
def test_the_reference_is_built_without_a_warning(tmp_path):
    pytest.importorskip("pdoc")
    command = ["make", "docs", "--old-file=setup", f"API={tmp_path}"]
    built = subprocess.run(
        [*command, f"BIN={Path(sys.executable).parent}"], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0 and "Warn" not in built.stderr, built.stderr
    page = (tmp_path / "paretohqd_jax" / "pareto.html").read_text()
    assert all(f'id="{name}"' in page for name in pareto.__all__)
    modules = {path.stem for path in tmp_path.rglob("*.html")}
    assert {"config", "sources", "scoring", "front", "paretohqd", "sampler", "loop"} <= modules
    assert not modules & {"sieve", "tiles"}


@pytest.mark.parametrize("name", pareto.__all__)
def test_public_functions_of_pareto_tell_their_shapes(name):
    assert re.search(r"\[(num_\w+|[A-Z])\b.*\]", inspect.getdoc(getattr(pareto, name)))


def test_functions_of_the_method_page_exist():
    named = {
        *re.findall(
            r"`((?:pareto|training|methods|steps|evaluation)\.[\w.]+)`", PAGES["docs/method.md"]
        )
    }
    assert len(named) > 10
    assert [name for name in named if pydoc.locate(f"paretohqd_jax.{name}") is None] == []
