"""What programs send and copy, printed for meshes and chips."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys

import collectives
import programs
import pytest


def tables(text):
    """The rows of each table, by column."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line[:1] == "|"]
        if lines:
            found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def test_data_parallel_adapters_exchange_next_to_nothing(capsys):
    arguments = "--shape=toy --adapters=2 --rows=2 --length=12 --rank=2 --remat=full"
    collectives.main([*arguments.split(), "--meshes=2,1,1/1,2,1"])
    sent, _ = tables(capsys.readouterr().out)
    moved = {row["data, fsdp, tensor"]: float(row["moved MB"]) for row in sent}
    assert moved["2, 1, 1"] < 0.001  # the losses
    assert moved["1, 2, 1"] > 0.01  # the base, gathered layer by layer


PROGRAMS = [*programs.PROGRAMS]
DECODING = "--shape=toy --meshes=1,1,1 --rank=2 --slots=32 --programs=decode".split()


def test_a_decoding_step_copies_no_weights_and_no_cache(capsys):
    more = ["--programs=prefill,decode,score", "--rows=2", "--length=12"]
    collectives.main([*DECODING[:-1], *more])
    _, [prefill, row, scored] = tables(capsys.readouterr().out)
    assert (prefill["program"], scored["program"]) == ("prefill", "score")
    assert float(row["of the least"].rstrip("%")) < 5 > float(row["once per call MB"])


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs JAX's CUDA plugin"
)
def test_nor_does_it_on_an_h100():
    # In a process of its own: a GPU can be compiled for only before anything else uses JAX.
    command = [sys.executable, collectives.__file__, *DECODING[:-1], "--topology=h100"]
    command += [f"--programs={','.join(PROGRAMS)}", "--adapters=2", "--rows=2", "--length=16"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, copied, least = tables(out)
    assert [row["program"] for row in least] == PROGRAMS
    row = copied[PROGRAMS.index("decode")]
    assert float(row["of the least"].rstrip("%")) < 5 > float(row["once per call MB"])


def test_a_mesh_that_does_not_fit_is_one_line(monkeypatch):
    options = "--shape=toy --meshes=1,3,1 --adapters=2 --rows=3 --length=16".split()
    monkeypatch.setattr(sys, "argv", ["collectives.py", *options])
    with pytest.raises(SystemExit, match=r"^error: .* cannot be cut into config.mesh.fsdp=3"):
        runpy.run_path(collectives.__file__, run_name="__main__")
