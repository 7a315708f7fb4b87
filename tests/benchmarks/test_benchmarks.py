"""Every benchmark runs at toy size and prints its table; peers that are not installed are named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import budget
import contenders
import generate
import morlhf
import preference
import pytest
import score

from paretohqd_jax.config.loading import load_config
from paretohqd_jax.config.sipo import mixture_weights

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

TOY = "--shape=toy --rounds=1 --rows=1 --length=12 --rank=2 --adapters=2".split()


def cells(output: str, contender: str) -> list[str]:
    line = next(line for line in output.splitlines() if line.startswith(f"| {contender}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.fixture
def in_this_process(monkeypatch):
    """No process per contender, which takes seconds each; `contenders` has tests of its own."""

    def measured(make, options):
        try:
            step = make(options)
        except ImportError as error:
            return f"{error.name} is not installed"
        start = time.perf_counter()
        result = step()
        return contenders.Measurement(0.0, [time.perf_counter() - start], 1, result)

    def measure(makes, options, **_):
        return {name: measured(make, options) for name, make in makes.items()}

    monkeypatch.setattr(contenders, "measure", measure)


def test_fine_tuning_with_a_process_per_contender():
    command = [sys.executable, str(BENCHMARKS / "finetune.py"), *TOY, "--threads=1", "--layers=1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(BENCHMARKS.parent)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    together, alone = (cells(result.stdout, name) for name in ("ours, 2", "ours, one"))
    assert float(together[0]) > 0
    assert together[3].endswith("%")
    assert together[-1] == alone[-1]  # the first loss
    peft = cells(result.stdout, "transformers + PEFT")
    assert peft[-1].endswith("is not installed") or peft[-1] == alone[-1]


@pytest.mark.parametrize("adapters", [1, 2])
def test_preferences(in_this_process, capsys, adapters):
    preference.main([*TOY, f"--adapters={adapters}", "--layers=1"])
    output = capsys.readouterr().out
    if adapters == 1:
        contenders = ["ours, DPO ", "ours, DPO-LW", "ours, RACO"]
        assert re.search(r"A step of RACO takes [\d.]+ of DPO-LW's", output)
    else:
        contenders = ["ours, 2 adapters", "ours, one adapter"]
    losses = [cells(output, name)[-1] for name in contenders]
    assert losses[-2] == losses[-1]  # at the first step
    peer = cells(output, "TRL + PEFT")
    assert peer[-1].endswith("is not installed") or peer[-1] == losses[0]


def test_decoding(in_this_process, capsys):
    generate.main([*TOY, "--new_tokens=3"])
    output = capsys.readouterr().out
    for contender in ("ours, 2 adapters", "ours, one adapter", "ours, no adapter"):
        assert float(cells(output, contender)[0]) > 0
    assert "| transformers generate, no adapter |" in output


def test_mixing(in_this_process, capsys):
    generate.main([*TOY, "--new_tokens=3", "--mixed"])
    output = capsys.readouterr().out
    for contender, members in (
        ("one adapter", "1"),
        ("2 adapters mixed", "2"),
        ("2 adapters and", "3"),
    ):
        assert cells(output, contender)[2] == members


def test_an_update_of_morlhf_beside_its_parts(in_this_process, capsys):
    small = ("--adapters=2", "--rank=2", "--prompts=2", "--new_tokens=3", "--rounds=1")
    morlhf.main(["--source=random:toy", *small])
    output = capsys.readouterr().out
    for contender in ("ours, 2 models", "its decoding", "its training", "ours, one model"):
        assert float(cells(output, contender)[0]) >= 0
    assert re.search(r"The update takes [\d.]+ of its parts' sum", output)


def test_scoring(in_this_process, capsys):
    score.main(["--shape=toy", "--rows=5", "--median_length=12", "--peer_batches=2"])
    output = capsys.readouterr().out
    assert float(cells(output, "ours, batch 4")[0]) > 0
    peer = cells(output, "transformers, batch 2")
    assert peer[-1].endswith("is not installed") or float(peer[-1]) < 1e-4


@pytest.mark.parametrize(
    ("task", "num_stages", "paper"),
    [("paretohqd", 5, 55.87), pytest.param("sipo", 5, 81.0, marks=pytest.mark.slow)],
)
def test_the_budget_adds_up_its_stages(in_this_process, capsys, task, num_stages, paper):
    budget.main([*TOY, "--batches=1", "--new_tokens=3", f"--task={task}"])
    output = capsys.readouterr().out
    hours = [float(h) for h in re.findall(r"^\| [a-z].*\| ([\d.]+) \|$", output, re.MULTILINE)]
    total = float(re.search(r"\*\*whole task\*\* .*\*\*([\d.]+)\*\*", output)[1])
    assert len(hours) == num_stages + 1
    assert hours[-1] == paper
    assert abs(sum(hours[:-1]) - total) < 0.02


def test_the_budget_of_sipo_is_that_of_its_configuration():
    config = load_config("sipo_beavertails_llama2_7b")
    batch_size = config.train.batch_size
    assert config.train.num_steps * batch_size == budget.DPO_PAIRS
    assert config.sipo.num_steps * batch_size == budget.AGAIN_PAIRS
    writers, soups = (
        mixture_weights(text, 2) for text in (config.sipo.weights, config.sipo.soup_weights)
    )
    assert len(writers) == budget.WRITERS
    assert 1 + 2 + len(soups) == budget.JUDGES  # the base model and those of the objectives, too
    assert config.generate.num_prompts == budget.SIPO_PROMPTS
    assert config.generate.max_new_tokens == budget.DRAFT_TOKENS
    assert (config.data.max_tokens, config.sipo.refinement) == (budget.LENGTH, "none")
