"""The package as a wheel, without a checkout: its configs by name, and a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW = [
    "--config.train.stage1_steps=2", "--config.train.stage2_steps=2", "--config.preferences=3",
    "--config.generate.max_new_tokens=12", "--config.evaluate.max_new_tokens=12",
    "--config.select.k=4",
]  # fmt: skip


def execute(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what makes it, for a build leaves files beside its sources."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer")
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in ("paretohqd_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    execute(*build, "--wheel-dir", out, source, cwd=out)
    [path] = out.iterdir()
    return path


def test_the_wheel_holds_the_configs(wheel):
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    for path in (ROOT / "configs").rglob("*.py"):
        assert Path("paretohqd_jax") / path.relative_to(ROOT) in names
    assert {path.parts[0] for path in names if path.suffix == ".py"} == {"paretohqd_jax"}


@pytest.mark.slow
def test_the_toy_runs_from_an_installed_wheel_in_an_empty_directory(wheel, tmp_path):
    environment, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install"]
    execute(*install, "--no-deps", "--no-index", wheel, cwd=here)
    # The packages that it depends on are those of this environment.
    paths = {"base": environment, "platbase": environment}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    command = environment / "bin/paretohqd"
    where = execute(python, "-c", "import paretohqd_jax; print(paretohqd_jax.__file__)", cwd=here)
    assert Path(where.stdout).is_relative_to(environment)
    assert "\ntoy " in execute(command, "configs", cwd=here).stdout
    execute(command, "configs", "toy", "--copy", "mine.py", cwd=here)
    ran = execute(command, "--config=toy", "--workdir=run", *FEW, cwd=here)
    assert "report: run/report/report.html" in ran.stdout and (here / "run/adapters").is_dir()
    execute(command, "--config=mine.py:sft", "--workdir=mine", "--stage=score", cwd=here)
    assert (here / "mine/scores.parquet").read_bytes() == (here / "run/scores.parquet").read_bytes()
