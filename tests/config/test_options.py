"""Each option is declared once, and what is printed and written of it comes from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretohqd_jax.commands import run
from paretohqd_jax.config import METHODS, check_config, default_config, options_of
from paretohqd_jax.config.options import SOURCES, flat, is_valid
from paretohqd_jax.config.table import WIDTH, options_page, options_text
from paretohqd_jax.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
LEFT_TO_THE_USER = {"settings"}  # what a study compares


@pytest.mark.parametrize("method", METHODS)
def test_every_default_is_valid_and_has_a_source(method):
    for name, option in flat(options_of(method)).items():
        assert is_valid(option, option.default) or name in LEFT_TO_THE_USER, name
        assert option.source in SOURCES, name
        assert option.help.endswith("."), name


def test_a_method_has_the_options_that_it_reads():
    assert "select" in default_config() and "preferences" in default_config()
    sft = default_config("sft")
    assert "select" not in sft and "preferences" not in sft
    assert list(sft.generate) == ["engine", "engine_command"]
    assert sft.train.num_steps == default_config().train.stage1_steps * 2
    with pytest.raises(AttributeError):
        sft.select = 1


def test_a_method_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="config.method='magic': use one of paretohqd, sft, "):
        default_config("magic")


def test_options_that_the_method_does_not_read_are_refused():
    config = default_config("sft")
    with config.unlocked():
        config.train.stage1_steps = 3
    with pytest.raises(InputError, match="config.train.stage1_steps: no such option"):
        check_config(config)


def test_an_option_without_a_value_is_refused():
    config = default_config()
    config.select.k = None
    with pytest.raises(InputError, match="config.select.k=None is not valid; use at least 2"):
        check_config(config)


@pytest.mark.parametrize("method", ["", *METHODS])
def test_the_options_are_printed(method, capsys):
    run(["options", method] if method else ["options"])
    printed = capsys.readouterr().out
    assert printed == options_text(method) + "\n"
    assert all(len(line) <= WIDTH for line in printed.splitlines())
    for name, option in flat(options_of(method)).items() if method else ():
        assert f"  {name.rpartition('.')[2]} = {option.default!r}" in printed


def test_what_is_printed_of_one_option():
    lines = options_text("paretohqd").splitlines()
    row = next(index for index, line in enumerate(lines) if line.startswith("  k = "))
    assert lines[row].split() == ["k", "=", "100", "at", "least", "2", "[ParetoHqD]"]
    assert lines[row + 1].strip() == "Rows per preference; stage 2 takes half."


def test_the_page_of_options_is_up_to_date(capsys):
    run(["options", "--markdown"])
    printed = capsys.readouterr().out
    assert printed == options_page() + "\n"
    assert PAGE.read_text() == printed, "paretohqd options --markdown > docs/options.md"


def test_every_option_is_on_the_page_once_for_each_declaration():
    page = options_page()
    for name in ("data.source", "select.k", "draw.k", "text.cut", "populations"):
        assert f"| `config.{name}` |" in page
    # Shared, of methods that learn from pairs and from rewards, soups of these, the reward model.
    assert page.count("| `config.lora.dropout` |") == 5
    assert page.count("| `config.select.k` |") == 3  # paretohqd, sft_soup, selection_study
