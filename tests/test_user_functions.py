"""What a user's own function raises is one line that says where."""

from __future__ import annotations

import sys

import pytest

from paretohqd_jax.data.sources import load_rows
from paretohqd_jax.errors import InputError
from paretohqd_jax.main import console
from paretohqd_jax.rewards.scoring import score
from paretohqd_jax.user_functions import definition_digest, find_function

MODULE = """\
import json

def rows():
    return [{"prompt": "p", "response": json.loads("{")}]

def scorer(prompts, responses):
    return [helper(response) for response in responses]

def helper(response):
    return {}["no such
key"]

def numbers():
    return [{"prompt": "p", "response": 5}, {"prompt": "p", "response": 6}]
""".replace("such\nkey", "such\\nkey")


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "raising_functions.py").write_text(MODULE)
    (tmp_path / "raising_import.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_data_function_that_raises_is_named_with_its_line():
    message = (
        r"^data.source='raising_functions:rows': JSONDecodeError: Expecting .* \(/.*"
        r"raising_functions.py, line 4\); --debug shows the traceback$"
    )
    with pytest.raises(InputError, match=message):
        load_rows("raising_functions:rows")


def test_a_scorer_that_raises_is_named_with_its_batch_and_the_last_line_of_its_file():
    message = (
        r"^rows.csv: objective 'raising_functions:scorer': a batch of 2 rows, the first of which "
        r"is row 8 \('b'\): KeyError: 'no such\\nkey' \(/.*raising_functions.py, line 10\)"
    )
    with pytest.raises(InputError, match=message):
        score(["p", "p"], ["long", "b"], ["raising_functions:scorer"], source="rows.csv",
              row_ids=[7, 8])  # fmt: skip


def test_an_import_that_raises():
    message = r"cannot import raising_import: ZeroDivisionError: .*raising_import.py, line 2\)"
    with pytest.raises(InputError, match=message):
        load_rows("raising_import:rows")


def test_a_text_that_is_none_names_its_row():
    message = "^raising_functions:numbers: row 0: response is 5: column 'response' holds int64"
    with pytest.raises(InputError, match=message):
        load_rows("raising_functions:numbers")


def test_debug_shows_the_traceback(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("prompt,response\np,r\n")
    command = ["paretohqd", "score", "rows.csv", "--models=raising_functions:scorer", "--out=a.csv"]
    for words, shown in ((command, False), ([*command, "--debug"], True)):
        with pytest.raises(SystemExit):
            console(words)
        error = capsys.readouterr().err
        assert ("Traceback" in error and "in helper" in error) == shown
        assert "KeyError: 'no such" in error.splitlines()[-1]


def test_sigterm_ends_a_command_with_143(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("prompt,response\np,r\n")
    (tmp_path / "stopping.py").write_text(
        "import os, signal\n"
        "def scorer(prompts, responses):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    with pytest.raises(SystemExit) as stop:
        console(["paretohqd", "score", "rows.csv", "--models=stopping:scorer", "--out=a.csv"])
    assert stop.value.code == 143
    assert "stopped by SIGTERM; the same command resumes" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


SCORERS = """\
import numpy as np
from functools import partial

UNUSED = 1
WEIGHT = 2

def helper(text):
    return WEIGHT * len(text)

def scorer(prompts, responses):
    return np.array([helper(response) for response in responses])

def make(strength):
    def judge(prompts, responses):
        return [strength for _ in responses]
    return judge

strict = make(3)
twice = partial(make, 2)
"""


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("scorer", "WEIGHT = 2", "WEIGHT = 3", True),
        ("scorer", "len(text)", "len(text) + 1", True),
        ("scorer", "import numpy", "import cupy", True),
        ("scorer", "UNUSED = 1", "UNUSED = 2", False),
        ("scorer", "    return WEIGHT *", "    # twice\n    return (WEIGHT) *", False),
        ("strict", "make(3)", "make(4)", True),
        ("strict", "[strength for", "[-strength for", True),
        ("strict", "WEIGHT = 2", "WEIGHT = 3", False),
        ("twice", "partial(make, 2)", "partial(make, 3)", True),
        ("twice", "[strength for", "[-strength for", True),
    ],
)
def test_a_function_is_told_by_its_text_and_what_it_uses_there(tmp_path, name, old, new, changes):
    path = tmp_path / "told_functions.py"
    path.write_text(SCORERS)
    sys.modules.pop("told_functions", None)
    function = find_function(f"told_functions:{name}", "")
    before = definition_digest(function, f"told_functions:{name}")
    assert old in SCORERS
    path.write_text(SCORERS.replace(old, new))
    assert (definition_digest(function, f"told_functions:{name}") != before) == changes


def test_of_a_function_without_text_nothing_is_known():
    assert definition_digest(len, "") is None
    assert definition_digest(eval("lambda prompts, responses: 1"), "") is None
