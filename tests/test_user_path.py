"""A user's path: data of their own, scored, looked at, trained on, interrupted, changed, handed on.

One test, since each command goes on where the one before it stopped. It trains as configs/toy.py
does, but for fewer steps.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from configs.toy import rows
from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.models.weights import load_pretrained

SCORERS = """
import os, pathlib
from configs.toy import variety as varied

def vowels(prompts, responses):
    stop = pathlib.Path("stop")
    if stop.exists():
        stop.unlink()
        raise KeyboardInterrupt
    return [sum(c in "aeiou" for c in response) / max(len(response), 1) for response in responses]

def variety(prompts, responses):
    return varied(prompts, responses)
"""
MODELS = "brief,mine=my_scorers:vowels"
BRIEF, MINE = "brief", "my_scorers:vowels"
RUN = (
    "--config=configs/toy.py", "--config.data.source=rows.parquet", "--config.rewards.cache=cache",
    "--config.train.stage1_steps=8", "--config.train.stage2_steps=4",
)  # fmt: skip


@pytest.fixture
def paretohqd(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder with data and scorers; returns what it says, and its status."""
    root = Path(__file__).parents[1]
    with open(tmp_path / "asked.jsonl", "w") as file:
        for row in rows():
            row = {"question": row["prompt"], "answer": row["response"]}
            file.write(json.dumps(row) + "\n")
    (tmp_path / "my_scorers.py").write_text(SCORERS)
    (tmp_path / "configs").symlink_to(root / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> str:
        if status == 130:
            Path("stop").touch()
        ended = 0
        try:
            console(["paretohqd", *words])
        except SystemExit as stop:
            ended = stop.code
        captured = capsys.readouterr()
        assert ended == status, captured.err
        return captured.out + captured.err

    return run


def counts(said: str) -> dict[str, tuple[int, int]]:
    """The last counts of each scorer: rows from the store, rows scored."""
    pattern = r": (\S+): of \d+ different rows (\d+) from the store, (\d+) scored"
    return {name: (int(known), int(new)) for name, known, new in re.findall(pattern, said)}


@pytest.mark.slow
def test_a_users_path(paretohqd):
    look(paretohqd)
    train(paretohqd)
    change(paretohqd)
    compare(paretohqd)
    hand_on(paretohqd)


def look(paretohqd):
    """convert, score, inspect, select"""
    said = paretohqd(
        "convert", "asked.jsonl", "--columns=prompt=question,response=answer", "--out=rows.parquet"
    )
    assert "rows.parquet: 480 rows with prompt, response" in said

    score = ("score", "rows.parquet", "--models", MODELS, "--batch-size=48", "--cache=cache",
             "--out=scores.parquet")  # fmt: skip
    said = paretohqd(*score, status=130)
    assert counts(said) == {BRIEF: (0, 192), MINE: (0, 0)}
    assert "error: interrupted; the same command resumes" in said
    said = paretohqd(*score)
    num_rows = len({(row["prompt"], row["response"]) for row in rows()})
    assert counts(said) == {BRIEF: (192, num_rows - 192), MINE: (0, num_rows)}
    assert "mine: mean " in said

    objectives = ("scores.parquet", "--objectives=brief,mine")
    said = paretohqd("inspect", *objectives)
    assert "scores.parquet: 480 rows" in said and "variance between prompts: brief " in said
    said = paretohqd("select", *objectives, "--preferences=4", "-k=12", "--out=chosen.parquet")
    assert "12 rows for each of 4 preferences" in said
    assert read_table("chosen.parquet").num_rows == 48


def train(paretohqd):
    """What cannot work is said at the start; a run, interrupted where it scores its responses."""
    run = (*RUN, f"--config.rewards.models={MODELS}", "--workdir=run")
    said = paretohqd(*run, "--config.generate.num_prompts=1", status=2)
    assert re.search(r"error: stage 2 selects 6 rows .* raise config.generate.num_prompts=1", said)
    said = paretohqd(*run, "--config.select.kk=3", status=2)
    assert "no such option or key: kk of config.select; did you mean config.select.k?" in said
    said = paretohqd(*run, "--check")
    assert re.search(r"stage1 +to do: 4 adapters, 8 steps of 4 rows", said)
    assert not Path("run").exists()

    said = paretohqd(*run, status=130)
    assert re.search(r"score: done .*rescore: started", said, re.DOTALL)
    trained = said[: said.index("rescore: started")]
    num_rows = read_table("run/scores.parquet").num_rows
    assert counts(trained) == {BRIEF: (num_rows, 0), MINE: (num_rows, 0)}
    said = paretohqd(*run)
    for step in ("score", "select1", "stage1", "generate"):
        assert f"{step}: up to date, skipped" in said
    assert "report: run/report/report.html" in said
    report = Path("run/report/report.html").read_text()
    assert "paretohqd --config=configs/toy.py" in report and "cache" not in report
    shutil.copytree("run", "before")


def change(paretohqd):
    """A changed option runs what depends on it; other rows and objectives score what is new."""
    other = (
        f"--config.rewards.models=mine={MINE},my_scorers:variety,brief", "--config.preferences=6",
        "--config.data.num_test_prompts=9", "--config.data.max_tokens=90",
    )  # fmt: skip
    said = paretohqd(*RUN, *other, "--workdir=other", "--stage=score")
    num_rows = read_table("other/scores.parquet").num_rows
    assert counts(said) == {
        MINE: (num_rows, 0), "my_scorers:variety": (0, num_rows), BRIEF: (num_rows, 0),
    }  # fmt: skip

    run = (*RUN, "--config.rewards.models", MODELS, "--workdir", "run")
    warmer = "--config.evaluate.temperature=0.9"
    paretohqd(*run, warmer, status=130)
    said = paretohqd("compare", "before", "run", "--out=compared", status=2)
    assert "run: a run has begun there again and is not finished" in said
    assert "a run there is not finished; these are the models before it" in paretohqd(
        "chat", "--workdir=run", "--preference=1,0", "--prompt=sing 1"
    )
    paretohqd(*run, warmer, "--stage=judge")
    said = paretohqd(*run, warmer, "--stage=evaluate")
    assert re.findall(r"(\w+): (started|up to date)", said)[-2:] == [
        ("judge", "up to date"), ("evaluate", "started"),
    ]  # fmt: skip


def compare(paretohqd):
    """Two runs side by side, fit for a paper."""
    said = paretohqd("compare", "a=run,run", "--out=compared", status=2)
    assert "a: names a run twice" in said
    said = paretohqd("compare", "seeds=before,run", "--out=compared", status=2)
    assert "evaluate.temperature is 0.9 in run" in said
    said = paretohqd("compare", "cool=before", "warm=run", "--base", "--out=compared")
    assert "truncated" in said and re.search(r"95 ?%", said)
    names = {path.name for path in Path("compared").iterdir()}
    assert names == {f"comparison.{end}" for end in ("md", "tex", "json", "png", "pdf", "svg")}
    assert r"\toprule" in Path("compared/comparison.tex").read_text()


def hand_on(paretohqd):
    """Answers, and a checkpoint of its own, in the format that was trained."""
    model = ("--workdir=run", "--preference=0.33,0.67")
    said = paretohqd("chat", *model, "--prompt=sing 3", "--temperature=0")
    assert "w0.33_0.67: stage2/w0.33_0.67 (brief, mine)" in said
    assert "merged: random:toy with its adapter merged" in paretohqd(
        "merge", *model, "--out=merged"
    )
    for folder in ("merged", "run/adapters/w0.33_0.67"):
        card = Path(folder, "README.md").read_text()
        assert '* prompt format: "{prompt}:"' in card and "* objectives: brief, mine=" in card
        assert "Mean rewards on 6 held-out prompts, 95 % intervals" in card
    load_pretrained("merged")
