"""Configs by path or name, what their programs may do wrong, and overrides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paretohqd_jax.commands import run
from paretohqd_jax.config.loading import find_config, load_config, override, shipped_configs
from paretohqd_jax.errors import InputError
from paretohqd_jax.main import parse_flags
from paretohqd_jax.user_functions import find_function

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["toy", "quickstart"])
@pytest.mark.parametrize("method", ["", "paretohqd", "sft"])
def test_a_config_has_the_options_of_the_method_after_the_colon(name, method):
    colon = ":" if method else ""
    config = load_config(f"{CONFIGS / name}.py{colon}{method}")
    assert config.method == (method or "paretohqd")
    assert ("select" in config) == (config.method == "paretohqd")
    assert load_config(f"{name}{colon}{method}") == config


def test_all_methods_of_the_toy_take_as_many_steps():
    train = load_config("toy").train
    assert load_config("toy:sft").train.num_steps == train.stage1_steps + train.stage2_steps


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("quikstart", "--config=quikstart: no config of this name; did you mean quickstart? "),
        ("configs/quikstart.py", "no such file; did you mean quickstart? `paretohqd configs` "),
        ("nothing_like_it", "no config of this name; `paretohqd configs` lists what there is"),
        ("studies/populations", "get_config"),
        ("toy:magic", "ValueError: method 'magic' is not one of paretohqd, sft"),
        ("studies/many_objectives:4", "ValueError: '4': use one of 3, 5, 8 objectives"),
        ("studies/k:cpu", "TypeError: too many positional arguments"),
    ],
)
def test_a_config_that_does_not_exist_is_named(source, message):
    with pytest.raises(InputError) as error:
        load_config(source)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_overrides_change_values_and_leave_other_words():
    config = load_config("toy")
    rest = override(config, ["p", "--config.select.k=5", "--config.lora.targets=('v_proj',)", "x"])
    assert rest == ["p", "x"]
    assert (config.select.k, config.lora.targets) == (5, ("v_proj",))


@pytest.mark.parametrize(
    "words",
    [
        ["--config=toy", "--workdir=run", "--config.select.k=5", "--noconfig.select.normalize"],
        ["--config.select.k", "5", "--noconfig.select.normalize", "--config", "toy",
         "--workdir", "run", "--config.method=paretohqd"],
    ],
)  # fmt: skip
def test_the_words_of_a_command_may_stand_in_any_order(words):
    config, workdir, stage, begin_with = parse_flags(["paretohqd", *words])
    assert (config.select.k, config.select.normalize, workdir, stage) == (5, False, "run", "")
    assert begin_with is None


def test_configs_are_listed_by_name_with_their_first_line(capsys):
    run(["configs"])
    printed = capsys.readouterr().out
    assert re.search(r"\ntoy +A whole run in seconds", printed)
    assert "\nstudies/k " in printed and "populations" not in printed
    assert all(shipped_configs().values())


def test_a_config_is_copied_to_edit(tmp_path, capsys):
    copy = tmp_path / "mine.py"
    run(["configs", "quickstart", "--copy", str(copy)])
    assert copy.read_bytes() == (CONFIGS / "quickstart.py").read_bytes()
    assert f"--config={copy}" in capsys.readouterr().out
    run(["configs", "quickstart"])
    assert capsys.readouterr().out == copy.read_text()
    assert load_config(str(copy)) == load_config("quickstart")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toys", "--copy", "mine.py"], "did you mean toy?"),
        (["toy", "--copy", "mine"], "--copy mine: give the name of a new file that ends in .py"),
        (["toy", "--copy", "taken.py"], "--copy taken.py: give the name of a new file"),
        (["--copy", "mine.py"], "--copy: say of which config"),
    ],
)
def test_a_copy_that_cannot_be_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken.py").write_text("mine")
    with pytest.raises(InputError) as error:
        run(["configs", *words])
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.py"]
    assert Path("taken.py").read_text() == "mine"


def test_the_files_of_a_checkout_are_those_of_the_package():
    assert find_config("toy").samefile(CONFIGS / "toy.py")


def test_functions_of_configs_are_found_without_a_checkout(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    root = str(CONFIGS.parent)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", root)])
    monkeypatch.delitem(sys.modules, "paretohqd_jax.configs.toy", raising=False)
    assert find_function("configs.toy:vowels", "option")([], ["aeb"]) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="cannot import configs.nothing"):
        find_function("configs.nothing:vowels", "option")


@pytest.mark.parametrize(
    ("value", "models"),
    [("a,b", ("a", "b")), ("('a','b')", ("a", "b")), ("['a', 'b']", ("a", "b")), ("a", ("a",)),
     ("'a'", ("a",)), ("x=m:f,brief", ("x=m:f", "brief")), ("", ()),
     ("m:f('x',2),x=m:g(3),brief", ("m:f('x',2)", "x=m:g(3)", "brief"))],
)  # fmt: skip
def test_several_values_may_be_written_with_commas_alone(value, models):
    for words in ([f"--config.rewards.models={value}"], ["--config.rewards.models", value]):
        if value or len(words) == 1:
            config, *_ = parse_flags(["paretohqd", "--config=toy", "--workdir=run", *words])
            assert config.rewards.models == models


def test_gates_keep_their_signs():
    words = ["--config=toy", "--workdir=run", "--config.select.gates=words>=6,brief<0"]
    assert parse_flags(["paretohqd", *words])[0].select.gates == ("words>=6", "brief<0")
