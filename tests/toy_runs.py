"""Toy runs from the command line, as fast as they can be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from paretohqd_jax.main import console
from paretohqd_jax.steps import task
from paretohqd_jax.training.mesh import make_mesh

CONFIG = Path(__file__).parents[1] / "configs" / "toy.py"


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """Runs take the first device alone; more compile for longer."""
    with pytest.MonkeyPatch.context() as patch:
        one = make_mesh(devices=jax.devices()[:1])
        patch.setattr(task, "make_mesh", lambda **_: one)
        yield


def run_toy(workdir: Path, *options: str, method: str = "paretohqd") -> None:
    with one_device():
        console(["paretohqd", f"--config={CONFIG}:{method}", f"--workdir={workdir}", *options])
