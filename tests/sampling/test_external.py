"""Requests to a serving engine and its answers, with a stand-in for vLLM."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.toy import get_config
from paretohqd_jax.config import check_config
from paretohqd_jax.distributed import Preempted
from paretohqd_jax.errors import InputError, Paused
from paretohqd_jax.main import console
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY, load_config
from paretohqd_jax.sampling import engine_command
from paretohqd_jax.sampling.external import check_engine, external_responses
from paretohqd_jax.sampling.generation import SCHEMA
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps import task
from paretohqd_jax.training.mesh import make_mesh

pytestmark = pytest.mark.cpu
PROMPTS = ["one", "two and more", "three", "four"]
FAKE = Path(__file__).parent / "fake_engine"
TOY = Path(__file__).parents[2] / "configs/toy.py"


@pytest.fixture(scope="module")
def toy():
    config = load_config(RANDOM_TOY)
    lora = LoraConfig(rank=3, alpha=6.0, targets=("v_proj",))
    adapters = init_adapters(jax.random.key(1), config, lora, 2)
    return Llama(config, lora), adapters, load_tokenizer(RANDOM_TOY)


def generate(toy, directory, seed=0, command=""):
    model, adapters, tokenizer = toy
    prompts = [tokenizer(PROMPTS).input_ids] * 2
    return external_responses(
        model, "org/model", adapters, tokenizer, prompts, jax.random.key(seed),
        SamplingConfig(12, temperature=0.7, top_p=0.9), eos_token_ids=(256,),
        directory=directory, description="generate", command=command,
    )  # fmt: skip


def run_engine(message: str, **environment: str) -> int:
    """Runs the command that the message tells, with the stand-in for vLLM."""
    [command] = [line for line in message.splitlines() if "answer_with_vllm.py" in line]
    return subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        env=os.environ | {"PYTHONPATH": str(FAKE)} | environment, capture_output=True,
    ).returncode  # fmt: skip


@pytest.fixture
def answered(toy, tmp_path):
    """The file of the engine's answers."""
    with pytest.raises(Paused) as paused:
        generate(toy, tmp_path)
    assert run_engine(str(paused.value)) == 0
    [answers] = tmp_path.glob("*/answers.jsonl")
    return answers


def test_answers_become_the_table(toy, tmp_path, answered):
    table = generate(toy, tmp_path)
    assert table.schema == SCHEMA
    assert table["answerer"].to_pylist() == [0] * 4 + [1] * 4
    assert table["prompt_id"].to_pylist() == [0, 1, 2, 3] * 2
    for row in table.to_pylist():
        assert row["truncated"] == row["periodic_tail"] == row["response"].startswith("haha")
        assert row["num_tokens"] == (12 if row["truncated"] else 3)
        assert row["truncated"] or row["response"].startswith(f"adapter{row['answerer']} says")
    assert 0 < sum(table["truncated"].to_pylist()) < 8
    with pytest.raises(Paused):  # answers to other requests are not taken
        generate(toy, tmp_path, seed=1)


def test_what_is_exported(toy, tmp_path):
    model, adapters, tokenizer = toy
    with pytest.raises(Paused, match="8 requests wait") as paused:
        generate(toy, tmp_path)
    [folder] = tmp_path.iterdir()
    assert "--model org/model --dtype float32 --max-lora-rank 8 --max-model-len 24\n" in str(
        paused.value
    )
    lines = [json.loads(line) for line in (folder / "requests.jsonl").open()]
    assert [line["custom_id"] for line in lines] == [f"{a}-{p}" for a in (0, 1) for p in range(4)]
    body = lines[5]["body"]
    assert body["model"] == "adapter1" and body["prompt"] == tokenizer(PROMPTS[1]).input_ids
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (12, 0.7, 0.9)
    assert body["stop_token_ids"] == [256] and body["top_k"] == -1
    assert len({line["body"]["seed"] for line in lines}) == 8
    exported = load_file(folder / "adapters/adapter1/adapter_model.safetensors")
    lora_a = exported["base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"]
    np.testing.assert_array_equal(lora_a, adapters["layers"]["v_proj"]["a"][1, 0].T)


def test_what_an_engine_may_be_reading_stays(toy, tmp_path):
    with pytest.raises(Paused):
        generate(toy, tmp_path)
    [adapter] = tmp_path.glob("*/adapters/adapter1/adapter_model.safetensors")
    adapter.write_text("being read")
    with pytest.raises(Paused):
        generate(toy, tmp_path)
    assert adapter.read_text() == "being read"


def test_an_engine_that_was_killed_goes_on(toy, tmp_path):
    with pytest.raises(Paused) as paused:
        generate(toy, tmp_path)
    assert run_engine(str(paused.value), FAKE_ENGINE_CALLS="1") != 0
    [partial] = tmp_path.glob("*/answers.partial.jsonl")
    first = partial.read_text()
    assert first.count("\n") == 4  # the first adapter's
    partial.write_text(first + '{"custom_id": "1-')
    with pytest.raises(Paused):
        generate(toy, tmp_path)
    assert run_engine(str(paused.value)) == 0
    [answers] = tmp_path.glob("*/answers.jsonl")
    assert answers.read_text().startswith(first)
    assert generate(toy, tmp_path).num_rows == 8


def test_a_command_is_run_until_it_has_answered(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    directory = tmp_path / "a b;$(touch c)"  # which a shell would read
    command = f"{sys.executable} {{script}} --gpu-memory-utilization 0.5"
    monkeypatch.setenv("FAKE_ENGINE_CALLS", "1")
    with pytest.raises(InputError, match="ended with status .*; its last lines: .*engine.log"):
        generate(toy, directory, command=command)
    monkeypatch.delenv("FAKE_ENGINE_CALLS")
    assert generate(toy, directory, command=command).num_rows == 8
    [partial] = directory.iterdir()
    assert "is complete" in (partial / "engine.log").read_text()
    assert generate(toy, directory).num_rows == 8


def test_commands_that_fail_say_their_last_words(toy, tmp_path):
    program = "print('a', 'b', '', 'c', 'd', sep=chr(10)); exit(7)"
    with pytest.raises(InputError, match=r"status 7; its last lines: b \| c \| d \(all of"):
        generate(toy, tmp_path, command=f'{sys.executable} -c "{program}" {{folder}}')
    with pytest.raises(InputError, match="left no .*answers.jsonl; its last lines: none"):
        generate(toy, tmp_path, command=f"{sys.executable} -c pass {{folder}}")
    unnamed = tmp_path / "engine"
    unnamed.write_text("answer")
    unnamed.chmod(0o755)
    with pytest.raises(InputError, match="engine' cannot be run .Exec format error.; give a prog"):
        generate(toy, tmp_path, command=f"{unnamed} {{folder}}")
    with pytest.raises(InputError, match="there is no program 'no/python'; give its path"):
        check_engine("org/model", 64, "no/python {script}")


def test_sigterm_ends_the_command_too(toy, tmp_path, monkeypatch):
    def stop() -> None:
        if list(tmp_path.glob("*/pid")):
            raise Preempted

    monkeypatch.setattr(engine_command, "check_preemption", stop)
    program = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(99)"
    with pytest.raises(Preempted):
        generate(toy, tmp_path, command=f'{sys.executable} -c "{program}" {{folder}}/pid')
    [pid] = tmp_path.glob("*/pid")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    "command",
    ["python", "{script}", "python 'a {script}", "python a{script}",
     "bash -c 'python {script}' {folder}"],
)  # fmt: skip
def test_commands_that_cannot_answer_are_refused(command):
    config = get_config()
    config.generate.engine, config.generate.engine_command = "external", command
    with pytest.raises(InputError, match="engine_command=.* use '' or a command with {script}, as"):
        check_config(config)


def test_a_command_without_an_engine_is_refused():
    config = get_config()
    config.generate.engine_command = "python {script}"
    with pytest.raises(InputError, match="use it with config.generate.engine='external'"):
        check_config(config)


def changed(line: str, *path: str, value: object) -> str:
    answer = part = json.loads(line)
    for name in path[:-1]:
        part = part[name][0] if name == "choices" else part[name]
    part[path[-1]] = value
    return json.dumps(answer) + "\n"


BODY, CHOICE = ("response", "body"), ("response", "body", "choices")
DAMAGES = {
    "missing": (lambda line: "", "1 of 8 requests have no answer, the first is 0-2"),
    "cut": (lambda line: line[:40] + "\n", "line 3 is cut off or no JSON object"),
    "list": (lambda line: "[]\n", "line 3 is cut off or no JSON object"),
    "bytes": (lambda line: line[:40] + "\udcff\n", "line 3 is cut off or no JSON object"),
    "twice": (lambda line: line * 2, "line 4 answers 0-2 again"),
    "unknown": (
        lambda line: changed(line, "custom_id", value="7-2"),
        "line 3: no request has the custom_id '7-2'",
    ),
    "list of ids": (
        lambda line: changed(line, "custom_id", value=["0-2"]),
        r"line 3: no request has the custom_id \['0-2'\]",
    ),
    "text alone": (
        lambda line: changed(line, "response", value="fine"),
        "line 3 .*needs response.body with model",
    ),
    "error": (
        lambda line: changed(line, "error", value={"message": "out of memory"}),
        r"line 3 \(0-2\): the engine reports .*out of memory",
    ),
    "status": (
        lambda line: changed(line, "response", "status_code", value=400),
        "engine reports status 400",
    ),
    "adapter": (
        lambda line: changed(line, *BODY, "model", value="adapter1"),
        r"line 3 \(0-2\): model 'adapter1' answered, not 'adapter0'",
    ),
    "shape": (
        lambda line: changed(line, *BODY, value={}),
        "line 3 .*needs response.body with model",
    ),
    "text": (lambda line: changed(line, *CHOICE, "text", value=None), "line 3 .*text is None"),
    "reason": (
        lambda line: changed(line, *CHOICE, "finish_reason", value="abort"),
        "line 3 .*finish_reason is 'abort'",
    ),
    "count": (
        lambda line: changed(line, *BODY, "usage", value={"completion_tokens": 13}),
        "line 3 .*completion_tokens is 13, not 1 to 12",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_answers_are_named_by_line(toy, tmp_path, answered, damage):
    change, message = DAMAGES[damage]
    lines = answered.read_text().splitlines(keepends=True)
    damaged = "".join([*lines[:2], change(lines[2]), *lines[3:]])
    answered.write_bytes(damaged.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as raised:
        generate(toy, tmp_path)
    assert str(answered) in str(raised.value) and "again" in str(raised.value)


@pytest.mark.parametrize("source", ["model.gguf", "package:a/b.gguf", "random:toy"])
def test_models_no_engine_loads_are_refused(source):
    with pytest.raises(InputError, match=r"config.model.source='.*use a Hugging Face directory"):
        check_engine(source, 64, "")
    check_engine("org/model", 64, "")
    with pytest.raises(InputError, match="config.lora.rank=600"):
        check_engine("org/model", 600, "")


def test_a_run_stops_for_the_engine_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(task, "check_engine", lambda *_: None)  # the toy model is no file
    one = make_mesh(devices=jax.devices()[:1])  # more devices compile for longer
    monkeypatch.setattr(task, "make_mesh", lambda **_: one)
    options = (
        f"--config={TOY}", f"--workdir={tmp_path}", "--config.generate.engine=external",
        "--config.train.stage1_steps=4", "--config.train.stage2_steps=2",
    )  # fmt: skip

    def run(*more: str) -> str:
        console(["paretohqd", *options, *more])
        return capsys.readouterr().out

    def paused() -> str:
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 3
        return capsys.readouterr().out

    message = paused()
    assert f"generate: {3 * 24} requests wait" in message
    assert paused() == message
    assert run_engine(message) == 0
    assert f"respond: {9 * 6} requests wait" in paused()
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    assert "report.html" in run(f"--config.generate.engine_command={sys.executable} {{script}}")
    assert not list((tmp_path / "partial").iterdir())
