"""The house: a package imports only what stands below it, and heavy libraries late."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "paretohqd_jax"
# Each room may import the rooms of later lines. The leaves may be imported by all.
ORDER = [
    {"main"},
    {"commands"},
    {"methods", "studies"},
    {"steps"},
    {"pipeline", "evaluation", "rewards", "sampling", "training"},
    {"finished_steps"},
    {"manifest", "policies"},
    {"config"},
    {"constraints", "data", "models", "pareto"},
]
LEAVES = {"distributed", "errors", "files", "progress", "provenance", "user_functions"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(room: str) -> int:
    return next(index for index, rooms in enumerate(ORDER) if room in rooms)


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module for module in modules if module.startswith("paretohqd_jax.")}


def imported_rooms(path: Path) -> set[str]:
    return {module.split(".")[1] for module in imported_modules(path)}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_imports_only_what_stands_below_it(path):
    room = room_of(path)
    if room == "__init__":
        return
    allowed = LEAVES | {room}
    if room not in LEAVES:
        allowed = allowed.union(*ORDER[level(room) + 1 :])
    assert imported_rooms(path) <= allowed


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checkers and those inside functions count too."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    imports = {
        name: {
            imported if imported in modules else imported.rpartition(".")[0]
            for imported in imported_modules(path)
        }
        & modules.keys() - {name}
        for name, path in modules.items()
    }
    while leaves := [name for name, needs in imports.items() if not needs]:
        imports = {
            name: needs.difference(leaves) for name, needs in imports.items() if name not in leaves
        }
    assert imports == {}


def test_only_methods_and_their_options_know_methods_by_name():
    """No other room asks which method it works for, nor for the stages of one."""
    theirs = re.compile(r"\b(sft|best_of_n|stage[12])\b")
    found = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for path in PACKAGE.rglob("*.py")
        if room_of(path) not in ("methods", "config", "configs")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "\n" not in node.value and theirs.search(node.value)
    }
    assert found == set()


LATE = ("transformers", "datasets", "matplotlib", "gguf", "torch", "orbax", "tensorboardX")


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("paretohqd_jax.pareto", (*LATE, "flax", "optax", "pyarrow", "scipy", "moocore")),
        ("paretohqd_jax.main", LATE),
    ],
)
def test_heavy_libraries_are_imported_when_needed(module, late):
    program = f"import sys, {module}; print([m for m in {late!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_no_module_touches_a_backend_when_imported():
    modules = sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    )
    program = (
        f"import importlib; [importlib.import_module(name) for name in {modules!r}]\n"
        "from jax._src.xla_bridge import backends_are_initialized as touched; print(touched())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
