"""The folder in which the pages are followed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pages import ROOT
from toy_runs import run_toy

from paretohqd_jax.data.rows import write_table


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """Small files of the names that the pages use, and a finished run of toys."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("configs", "benchmarks", "launch"):
        (folder / name).symlink_to(ROOT / name)
    random = np.random.default_rng(0)
    numbers = range(160)
    rows = {
        "prompt": [f"Why is the sky blue on day {number // 8}?" for number in numbers],
        "response": ["It is so because of light. " * (1 + number % 7) for number in numbers],
        "win_rate": random.uniform(size=160),
    }
    scores = {name: random.normal(size=160) for name in ("helpful", "harmless", "brief")}
    asked = {"question": rows["prompt"], "answer": rows["response"]}
    rated = {"prompt": rows["prompt"], "response": rows["response"], "rating": numbers}
    for name, columns in {
        "rows.parquet": {name: rows[name][:24] for name in ("prompt", "response")},
        "scores.parquet": rows | scores,
        "answers.csv": asked,
        "answers.jsonl": rated,
        "alpaca_eval_scored.jsonl.gz": rows,
    }.items():
        path = folder / name.removesuffix(".gz")
        write_table(path, pa.table(columns))
        if path.name != name:
            (folder / name).write_bytes(gzip.compress(path.read_bytes()))
    for name in ("hh-rlhf", "PKU-SafeRLHF"):
        (folder / name).mkdir()
    (folder / "prompts.txt").write_text("Sing.\nSing more.\n")
    told = {"instruction": "Sing", "temperature": 1.0, "max_new_tokens": 60}
    (folder / "instructions.jsonl").write_text(json.dumps(told))
    run_toys(folder / "run")
    return folder


def run_toys(workdir: Path) -> None:
    """A whole run of a few steps."""
    options = {
        "rewards.models": "('helpful=configs.toy:vowels','brief')", "preferences": "5",
        "train.stage1_steps": 2, "train.stage2_steps": 2, "select.k": 4,
        "data.num_test_prompts": 3, "generate.num_prompts": 12, "generate.max_new_tokens": 12,
        "evaluate.max_new_tokens": 12,
    }  # fmt: skip
    run_toy(workdir, *(f"--config.{name}={value}" for name, value in options.items()))
