"""`paretohqd chat` and `paretohqd merge` on a run directory, and what they refuse."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.toy import get_config
from paretohqd_jax.commands import chat as chat_command
from paretohqd_jax.config import check_config
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import write_json
from paretohqd_jax.main import console
from paretohqd_jax.manifest import LAYOUT
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import RANDOM_TOY, load_config, load_pretrained
from paretohqd_jax.pareto import preference_grid
from paretohqd_jax.policies import (
    Policies,
    one_adapter_each,
    preference_labels,
    write_policies,
)
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.decoder import decode
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.streaming import INCOMPLETE, stream_response
from paretohqd_jax.steps import base_model, serving
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.training import checkpoint_meta
from paretohqd_jax.training.checkpoints import checkpoint_manager, save

GOLDEN = Path(__file__).parents[1] / "models" / "golden"


@pytest.fixture(scope="module")
def params():
    return load_pretrained(RANDOM_TOY)[1]


@pytest.fixture(scope="module")
def adapters():
    """Four adapters, far apart."""
    lora, config = LoraConfig(**get_config().lora), load_config(RANDOM_TOY)
    shapes = jax.eval_shape(lambda: init_adapters(jax.random.key(0), config, lora, 4))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype("float32"), shapes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, adapters):
    """What the commands read of a finished run of configs/toy.py."""
    workdir = tmp_path_factory.mktemp("run")
    config = get_config()
    write_json(workdir / "config.json", config.to_dict())
    record = {"inputs": [], "options": {}, "seconds": 1.0, "cost": {}}
    steps = {"stage2": record | {"fingerprint": "stage2"},
             "policies": record | {"fingerprint": "policies", "inputs": ["stage2"]}}  # fmt: skip
    write_json(workdir / "manifest.json", {"layout": LAYOUT, "steps": steps})
    model = BaseModel(RANDOM_TOY, "float32", "none", "", LoraConfig(**config.lora))
    labels = preference_labels(preference_grid(4))
    family = one_adapter_each("stage2", preference_grid(4))
    told = {"source": RANDOM_TOY, "dtype": "float32", "prompt_format": config.data.prompt_format,
            "date": "", "lora": config.lora.to_dict()}  # fmt: skip
    objectives = ["brief", "configs.toy:vowels"]
    policies = Policies(objectives, told, {"stage2": labels}, {"stage2": family})
    write_policies(workdir / "policies.json", policies)
    meta = checkpoint_meta(model, labels)
    with checkpoint_manager(workdir / "stage2", 1) as manager:
        save(manager, 1, {"adapters": adapters}, meta, force=True)
    return workdir


@pytest.fixture
def workdir(tmp_path, finished):
    """A copy to be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


def edit_policy(workdir, **changes):
    """Changes the policy that serves 1,0."""
    values = json.loads((workdir / "policies.json").read_text())
    values["families"]["stage2"][-1] |= changes
    write_json(workdir / "policies.json", values)


def edit_base(workdir, **changes):
    """Changes what is told of the base model."""
    values = json.loads((workdir / "policies.json").read_text())
    values["base"] |= changes
    write_json(workdir / "policies.json", values)


def run(capsys, *argv):
    """What a command prints, and what it tells about it."""
    console(["paretohqd", *map(str, argv)])
    return capsys.readouterr()


def error_line(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        console(["paretohqd", *map(str, argv)])
    assert stop.value.code == 2
    [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_chat_answers_one_prompt(finished, params, capsys, monkeypatch):
    monkeypatch.setattr(
        base_model, "load_pretrained", lambda *_: (None, params)
    )  # each time takes long

    def answer(preference, *options):
        chat = ("chat", "--workdir", finished, "--prompt", "sing 3", "--preference", preference)
        return run(capsys, *chat, *options)

    trained = answer("0.33,0.67")
    assert (
        len(trained.out) > 3
        and "w0.33_0.67: stage2/w0.33_0.67 (brief, configs.toy:vowels)" in trained.err
    )
    assert "nearest" not in trained.err
    nearest = answer("0.4,0.6")
    assert nearest.out == trained.out
    assert "0.4,0.6 was not trained, served by the nearest, w0.33_0.67" in nearest.err
    between = answer("0.4,0.6", "--interpolate")
    assert "0.8 of stage2/w0.33_0.67 + 0.2 of stage2/w0.67_0.33" in between.err
    labelled = run(
        capsys, "chat", "--workdir", finished, "--prompt", "sing 3", "--policy", "stage2/w0.33_0.67"
    )
    assert labelled.out == trained.out
    greedy = answer("0.33,0.67", "--temperature", "0", "--seed", "2")
    again = answer("0.33,0.67", "--temperature", "0", "--max-new-tokens", "24")
    other = answer("0.33,0.67", "--seed", "2")
    assert greedy.out == again.out
    assert len({said.out for said in (trained, between, greedy, other)}) == 4


def test_chat_mixes_logits_and_merge_does_not(workdir, params, tmp_path, capsys, monkeypatch):
    """Preferences in between are served without --interpolate: they need no training."""
    monkeypatch.setattr(base_model, "load_pretrained", lambda *_: (None, params))
    adapters = ["stage2/w0.33_0.67", "stage2/w1.00_0.00"]
    edit_policy(workdir, adapters=adapters, weights=[0.5, 0.5], combine="logits")
    where = ("--workdir", workdir, "--preference", "0.8,0.2")
    chat = run(capsys, "chat", *where, "--prompt", "sing 3", "--max-new-tokens", 8)
    assert "0.6 of stage2/w0.67_0.33 + 0.2 of stage2/w0.33_0.67 + 0.2 of stage2/w1" in chat.err
    assert "mixed at every token by reverse_kl" in chat.err and len(chat.out) > 3
    line = error_line(capsys, "merge", *where, "--out", tmp_path / "merged")
    assert "mixes the next-token probabilities of" in line and "paretohqd chat" in line


def test_the_pieces_that_are_shown_are_the_response(adapters, params):
    """That of `decode` with the same key, up to its end; characters are not shown in part."""
    tokenizer = load_tokenizer(RANDOM_TOY)
    model = Llama(load_config(RANDOM_TOY), LoraConfig(**get_config().lora))
    stack = jax.tree.map(lambda leaf: leaf[:1], adapters)
    sampling = SamplingConfig(24, temperature=1.0, top_p=0.9)
    prompt = tokenizer("sing: ").input_ids
    padded = np.pad(np.array([prompt]), ((0, 0), (0, 16 - len(prompt))))
    key, end = jax.random.key(0), 256
    for _ in range(2):
        tokens, [[num_tokens]] = decode(
            model, params, stack, padded, np.array([len(prompt)]), key.reshape(1, 1), (end,),
            sampling,
        )  # fmt: skip
        drawn = tokens[0, 0, :num_tokens].tolist()
        expected = tokenizer.decode([token for token in drawn if token != end]).lstrip()
        pieces = list(
            stream_response(
                model, params, stack, Answerer((0,)), tokenizer, prompt, key, sampling, (end,)
            )
        )
        assert "".join(pieces) == expected and sum(map(bool, pieces)) > 2
        assert not any(piece.endswith(INCOMPLETE) for piece in pieces[:-1])
        end = drawn[10]  # the second time it ends there, if not before
    assert num_tokens <= 11


def converse(capsys, monkeypatch, workdir, *lines):
    """The questions with what was remembered, as the model got them; ends with Ctrl-D."""
    told = []

    def answer(_, adapter, sampling, seed, number, question, exchanges):
        told.append((number, question, list(exchanges)))
        if question == "stop me":
            raise KeyboardInterrupt
        return question.upper()

    entered = iter(lines)
    monkeypatch.setattr(chat_command, "_answer", answer)
    monkeypatch.setattr("builtins.input", lambda _: next(entered, None) or raise_eof())
    said = run(capsys, "chat", "--workdir", workdir, "--preference", "1,0")
    return told, said, list(entered)


def raise_eof():
    raise EOFError


def test_a_conversation(finished, capsys, monkeypatch):
    told, said, left = converse(capsys, monkeypatch, finished, "a", " ", "b ", "/quit", "c")
    assert told == [(0, "a", []), (1, "b", [])] and left == ["c"]
    assert "each question is on its own" in said.out


def test_a_conversation_that_is_remembered(workdir, capsys, monkeypatch):
    edit_base(workdir, prompt_format="chat")
    told, said, _ = converse(capsys, monkeypatch, workdir, "a", "stop me", "b")
    assert [exchanges for _, _, exchanges in told] == [[], [("a", "A")], [("a", "A")]]
    assert "on its own" not in said.out


@pytest.mark.parametrize(
    ("prompt_format", "remembered"),
    [
        ("<|user|>{prompt}<|assistant|>", True),
        ("{prompt} \n\nAssistant:", True),
        ("{prompt}:", False),
    ],
)
def test_formats_that_remember(workdir, capsys, monkeypatch, prompt_format, remembered):
    edit_base(workdir, prompt_format=prompt_format)
    told, _, _ = converse(capsys, monkeypatch, workdir, "a", "b")
    assert told[1][2] == ([("a", "A")] if remembered else [])


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_conversation_outlives_bytes_that_are_no_text(finished, capsys, monkeypatch, encoding):
    typed = io.TextIOWrapper(io.BytesIO(b"a\nb\xffad\nc\n"), encoding=encoding)
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    asked = []

    def answer(*context):
        asked.append(context[-2])
        print("\u00e9", flush=True)  # as of a model that answers in French
        return "\u00e9"

    monkeypatch.setattr(chat_command, "_answer", answer)
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("sys.stdout", shown)
    console(["paretohqd", "chat", "--workdir", str(finished), "--preference", "1,0"])
    assert asked == ["a", "c"]
    assert shown.buffer.getvalue().decode().count("\u00e9" if encoding == "utf-8" else r"\xe9") == 2
    [line] = [x for x in capsys.readouterr().err.splitlines() if "is not text" in x]
    assert f"the question is not text in {encoding} (at character 1)" in line


def test_a_question_of_bytes_that_are_no_text(finished, capsys):
    line = error_line(
        capsys, "chat", "--workdir", finished, "--preference", "1,0", "--prompt", "\udcff"
    )
    assert "the question is not text" in line


def test_chat_tells_the_date_of_the_run(workdir, monkeypatch):
    edit_base(workdir, date="2024-02-03", prompt_format="chat")
    _, model, *_ = serving.served_model(workdir, "1,0", "", False, "")
    model.tokenizer.chat_template = "{{ strftime_now('%d.%m.%Y') }} {{ messages[0].content }}"
    assert model.format(["hi"]) == ["03.02.2024 hi"]
    config = get_config()
    config.data.date = "3.2.2024"
    with pytest.raises(InputError, match="data.date"):
        check_config(config)


@pytest.mark.parametrize(
    ("prompt_format", "expected"),
    [("{prompt} \n\nAssistant:", "\n\nHuman: hi \n\nAssistant:"), ("{prompt}:", "hi:")],
)
def test_the_first_question_is_a_turn_where_dialogues_are_read(prompt_format, expected):
    model = BaseModel(RANDOM_TOY, "float32", "none", prompt_format, LoraConfig(rank=1))
    ids = chat_command._prompt(model, SamplingConfig(8), "hi", [])
    assert model.tokenizer.decode(ids) == expected


def test_what_the_context_has_no_room_for_is_forgotten():
    model = BaseModel(RANDOM_TOY, "float32", "none", "chat", LoraConfig())
    exchanges = [("x" * 200, "y" * 150), ("why?", "so.")]

    def prompt(question, *exchanges):
        ids = chat_command._prompt(model, SamplingConfig(64), question, exchanges)
        return model.tokenizer.decode(ids)

    assert prompt("short", *exchanges).count("x") == 200
    assert prompt("z" * 90, *exchanges) == prompt("z" * 90, exchanges[1])
    assert "why?" in prompt("z" * 90, *exchanges)


def test_merge_builds_the_adapter_in(finished, adapters, params, tmp_path, capsys):
    out = tmp_path / "merged"
    where = ("--workdir", finished, "--preference", "0.4,0.6", "--interpolate", "--out", out)
    said = run(capsys, "merge", *where)
    assert f"{out}: random:toy with its adapter merged, in float32" in said.out
    _, merged = load_pretrained(str(out))
    for name, factors in adapters["layers"].items():
        updates = np.einsum("n,nlir,nlro->lio", [0, 0.8, 0.2, 0], factors["a"], factors["b"])
        expected = params["layers"][name]["kernel"] + 2.0 * updates  # alpha / rank
        np.testing.assert_allclose(merged["layers"][name]["kernel"], expected, atol=1e-5)
    asked = [{"role": "user", "content": "sing 3"}]
    tokenizer = load_tokenizer(str(out))  # its base's own template would write "user: "
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "sing 3:"
    assert "is there already" in error_line(capsys, "merge", *where)
    assert "is there already" in error_line(capsys, "merge", *where, "--out=")
    inside = finished / "config.json" / "merged"  # as if a file were a folder
    line = error_line(capsys, "merge", *where, f"--out={inside}")
    assert f"{inside}" in line and "config.json is not a folder" in line and ".tmp" not in line


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (
            "0.5",
            "give one weight for each of brief, configs.toy:vowels, in this order, such as 1,0",
        ),
        ("0.2,0.3,0.5", "give one weight for each of brief, configs.toy:vowels"),
        ("0.5,0.5;1,0", "give one weight for each"),
        ("0.9,0.3", "weights >= 0 that sum to 1"),
        ("-0.5,1.5", "weights >= 0 that sum to 1"),
        ("a,b", "could not convert string to float"),
    ],
)
def test_preferences_that_do_not_fit(finished, tmp_path, capsys, preference, message):
    out = tmp_path / "new"
    where = ["--workdir", finished, f"--preference={preference}"]
    assert message in error_line(capsys, "merge", *where, "--out", out)
    assert not out.exists()


def spoil(workdir, what):
    if what == "config.json is gone":
        (workdir / "config.json").unlink()
    elif what == "config.json is damaged":
        (workdir / "config.json").write_text("{")
    elif what == "a run of another kind":
        write_json(workdir / "config.json", {"method": "reward_model"})
    elif what == "policies are not named yet":
        (workdir / "policies.json").unlink()
    elif what == "another version":
        write_json(workdir / "manifest.json", {"score": {}, "stage2": {}})
    elif what == "manifest.json is damaged":
        write_json(workdir / "manifest.json", None)
    elif what == "policies.json is cut off":
        text = (workdir / "policies.json").read_text()
        (workdir / "policies.json").write_text(text[: len(text) // 2])
    elif what == "a policy of no adapter":
        edit_policy(workdir, adapters=["stage2/w9"])
    elif what == "weights of 0.7":
        edit_policy(workdir, weights=[0.7])
    elif what == "mixed off the simplex":
        edit_policy(workdir, adapters=["stage2/w0.00_1.00"] * 2, weights=[2, -1], combine="logits")
    elif what == "the checkpoint is gone":
        shutil.rmtree(workdir / "stage2")
    elif what == "another rank":
        values = json.loads((workdir / "policies.json").read_text())
        values["base"]["lora"]["rank"] = 5
        write_json(workdir / "policies.json", values)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("config.json is gone", "config.json: cannot be read"),
        ("config.json is damaged", "config.json: cannot be read"),
        ("a run of another kind", "is no run that aligns a language model"),
        ("policies are not named yet", "policies.json: no such file; the run's models are not"),
        ("another version", "is a run directory of layout 1, made by another version"),
        ("manifest.json is damaged", "manifest.json: damaged"),
        ("policies.json is cut off", "policies.json: damaged"),
        ("a policy of no adapter", "stage2/w1.00_0.00: there is no adapter 'stage2/w9'; there are"),
        ("weights of 0.7", "stage2/w1.00_0.00: its weights (0.7,) do not sum to 1"),
        ("mixed off the simplex", "mixes logits by weights (2, -1): they must be on the simplex"),
        ("the checkpoint is gone", "stage2: holds no checkpoint"),
        ("another rank", "the checkpoint was made with lora="),
    ],
)
def test_run_directories_that_cannot_serve(workdir, capsys, what, message):
    spoil(workdir, what)
    line = error_line(capsys, "chat", "--workdir", workdir, "--preference=1,0", "--prompt=a")
    assert message in line and len(line) < 500


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/model", "'/no/such/model' not found.*; --model says where"),
        (GOLDEN / "untied", "untied: is not the base model that the adapters belong to"),
    ],
)
def test_base_models_that_cannot_serve(finished, capsys, model, message):
    where = ("--workdir", finished, "--preference=1,0", "--prompt=a", "--model", model)
    assert re.search(message, error_line(capsys, "chat", *where))


def test_a_run_that_is_at_work_again_is_noticed(workdir, capsys, monkeypatch):
    (workdir / "partial" / "stage1").mkdir(parents=True)
    _, said, _ = converse(capsys, monkeypatch, workdir)
    assert "a run there is not finished; these are the models before it" in said.err


def test_models_of_a_run_that_began_again_are_noticed(workdir, capsys, monkeypatch):
    manifest = json.loads((workdir / "manifest.json").read_text())
    manifest["steps"]["stage2"]["fingerprint"] = "trained again"
    write_json(workdir / "manifest.json", manifest)
    _, said, _ = converse(capsys, monkeypatch, workdir)
    assert "a run there is not finished; these are the models before it" in said.err
