"""`--check`: what a run would do, without doing any of it; and what is known to be too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretohqd_jax.main import console
from paretohqd_jax.pipeline import Run
from paretohqd_jax.steps.plan import Plan

ROOT = Path(__file__).parents[2]


def check(workdir, *options, method="paretohqd"):
    config = f"--config={ROOT / 'configs/toy.py'}:{method}"
    console(["paretohqd", config, f"--workdir={workdir}", "--check", *options])


def refusal(capsys, *arguments, **keywords):
    with pytest.raises(SystemExit) as stop:
        check(*arguments, **keywords)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_steps_sizes_memory_and_time_are_told_and_nothing_is_written(tmp_path, capsys):
    check(tmp_path / "run")
    printed = capsys.readouterr().out
    assert "431 training rows of 54 prompts, and 6 prompts held out" in printed
    assert "stage1       to do: 4 adapters, 40 steps of 4 rows" in printed
    assert "generate     to do: 3 models, 24 prompts at most, answers of 24 tokens" in printed
    assert printed.count(" GB a device, about ") == 4  # two stages, two times of decoding
    assert "30% of what a matrix product reached here just now" in printed
    assert not (tmp_path / "run").exists()


def test_steps_that_are_done_are_told(tmp_path):
    def write(path, scratch, **options):
        path.write_text("x")

    Run(tmp_path, {}).step("a", "a.txt", write, size=1)
    plan = Plan(tmp_path)
    plan.step("a", "a.txt", write, size=1)
    plan.step("b", "b.txt", write)
    assert [step.reason for step in plan.steps] == [None, "not done yet"]
    again = Plan(tmp_path)
    again.step("a", "a.txt", write, size=2)
    assert again.steps[0].reason == "size was 1, is 2"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("paretohqd", ["generate.num_prompts=2", "select.k=20"],
         "stage 2 selects 10 rows per preference (half of config.select.k=20), but 3 models that "
         "answer 2 training prompts give 6 at most; raise config.generate.num_prompts=2"),
        ("paretohqd", ["select.k=9999", "generate.num_prompts=9999"],
         "431 rows to train on, without those held out and those of unfit length, fewer than "
         "config.select.k=9999"),
        ("paretohqd", ["select.k=400", "generate.num_prompts=200"], "that answer 54 training"),
        ("sft", ["draw.k=9999"], "fewer than config.draw.k=9999; give more rows, or lower"),
    ],
)  # fmt: skip
def test_too_little_is_known_at_the_start(tmp_path, capsys, method, options, message):
    words = [f"--config.{option}" for option in options]
    assert message in refusal(capsys, tmp_path / "run", *words, method=method)
    assert not (tmp_path / "run").exists()
