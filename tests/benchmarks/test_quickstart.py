from __future__ import annotations

import numpy as np
import pytest
import quickstart
from finished_runs import PREFERENCES, finished_run


@pytest.mark.parametrize(
    ("text", "other", "cut"),
    [
        ("One two  three.", "a b", "One two"),
        ("One", "a b", "One"),
        ("One two", "", ""),
        ("我用Python写", "a b", "我用"),
    ],
)
def test_an_answer_is_cut_to_the_words_of_another(text, other, cut):
    assert quickstart.cut_like(text, other) == cut


def test_expectations_of_two_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "score", lambda prompts, *_: np.zeros(len(prompts)))
    runs = [str(finished_run(tmp_path / f"seed{seed}", seed=seed)) for seed in range(2)]
    assert quickstart.main([*runs, "--answers", "1"]) == 0
    out = capsys.readouterr().out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    held = {row[0][2:]: row[2].rstrip(" |") for row in rows if len(row) == 3}
    assert list(held.values())[2:] == ["–", "yes", "yes", "yes", "yes", "yes", "–"]
    assert "**prompt 0**" in out and "* 0.5 / 0.5: answer of w0.50_0.50" in out
    assert "prompt 1" not in out and "| base model | " in out


def test_one_that_does_not_hold_is_told_by_the_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "score", lambda prompts, *_: np.full(len(prompts), 9.0))
    run = finished_run(tmp_path / "run", preferences=[*PREFERENCES[::-1]])
    assert quickstart.main([str(run), "--judge", "any"]) == 1
    lines = capsys.readouterr().out.splitlines()
    [less_helpful] = [line for line in lines if "cut to the same number of words" in line]
    [judge] = [line for line in lines if "a second helpful model" in line]
    assert less_helpful.endswith("| **no** |") and judge.endswith("| 0.00 | **no** |")
