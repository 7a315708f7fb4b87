"""Paths that begin with ~ or are relative: found everywhere, and absolute in what is handed on."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

from paretohqd_jax.commands import run as run_command
from paretohqd_jax.data.sources import check_source, load_rows
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import absolute_source, local_path
from paretohqd_jax.main import parse_flags
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.weights import RANDOM_TOY, load_config
from paretohqd_jax.pipeline import source_digest
from paretohqd_jax.rewards.registry import find_entry

ROOT = Path(__file__).parent.parent
ROWS = '{"prompt": "Why?", "response": "Because."}\n{"prompt": "How?", "response": "So."}\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home directory and the one commands run in, with a folder and a file of rows."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


@pytest.mark.parametrize("source", ["~/model", "model", "./model", "model/", "~/../{name}/model"])
def test_a_folder_under_its_names(home, source):
    source = source.format(name=home.name)
    assert local_path(source) == home / "model"
    assert absolute_source(source) == str(home / "model")
    before = source_digest(source)
    assert before == source_digest(str(home / "model"))
    (home / "model" / "config.json").write_text('{"model_type": "llama"}')
    assert source_digest(source) != before


@pytest.mark.parametrize("source", ["", RANDOM_TOY, "org/name", "~/none", "~nobody-here/model"])
def test_what_is_no_path_here_stands_for_itself(home, source):
    assert local_path(source) is None
    assert absolute_source(source) == source_digest(source) == source


@pytest.mark.parametrize(
    "source, written", [("~/model", "/model"), ("model", "/model"), ("org/name", "org/name")]
)
def test_adapters_name_their_base_by_its_absolute_path(home, source, written):
    config, lora = load_config(RANDOM_TOY), LoraConfig(rank=1)
    adapter = jax.tree.map(lambda x: x[0], init_adapters(jax.random.key(0), config, lora, 1))
    export_peft(home / "adapter", adapter, lora, config, source)
    values = json.loads((home / "adapter" / "adapter_config.json").read_text())
    expected = f"{home}{written}" if written.startswith("/") else written
    assert values["base_model_name_or_path"] == expected


def test_data_lie_at_home(home):
    check_source("~/rows.jsonl")
    assert load_rows("~/rows.jsonl")["response"].to_pylist() == ["Because.", "So."]
    with pytest.raises(InputError, match="no such file"):
        check_source("~/other.jsonl")


def test_reward_models_lie_at_home(home):
    assert find_entry("helpful@~/model").checkpoint == str(home / "model")
    assert find_entry("helpful@org/name").checkpoint == "org/name"
    card = {"checkpoint": "org/name", "texts": ["{response}"]}
    (home / "model" / "reward_model.json").write_text(json.dumps(card))
    assert find_entry("~/model").texts == ("{response}",)


def test_commands_read_and_write_at_home(home):
    run_command(["score", "~/rows.jsonl", "--models=brief", "--out=~/deep/scores.jsonl"])
    assert len((home / "deep" / "scores.jsonl").read_text().splitlines()) == 2
    assert not (home / "~").exists()


def test_a_run_directory_at_home(home):
    arguments = ["main", f"--config={ROOT / 'configs' / 'toy.py'}", "--workdir=~/runs/one"]
    assert parse_flags(arguments)[1] == str(home / "runs" / "one")
