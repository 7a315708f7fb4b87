"""Collectives are counted with the loops around them."""

from __future__ import annotations

import runpy
import sys

import collectives
import pytest

PROGRAM = """HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%body.1 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %ag = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  ROOT %t = (s32[], f32[4,8]) tuple(%i, %y)
}

%fused (x: f32[4,8]) -> bf16[16] {
  ROOT %p.1 = bf16[16]{0} all-gather(%x), channel_id=3, dimensions={0}
}

%body.2 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p.2 = bf16[16]{0} all-gather(%x), channel_id=3, dimensions={0}
  ROOT %f = bf16[16] fusion(%x), kind=kLoop, calls=%fused
}

%cond.1 (p: (s32[], f32[4,8])) -> pred[] {
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[4,8]) -> f32[] {
  %w = (s32[], f32[4,8]) while(%t0), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"30"}}
  %v = (s32[], f32[4,8]) while(%t0), condition=%cond.1, body=%body.2
  %s = (f32[2,8], f32[4,8]) all-gather-start(%z), dimensions={0}
  %d = f32[4,8] all-gather-done(%s)
  ROOT %all-reduce.5 = f32[] all-reduce(%q), to_apply=%sum
}
"""  # noqa: E501


def test_loops_multiply_what_runs_inside():
    counts, sizes = collectives.collectives(PROGRAM)
    assert counts == {"all-gather": 30 + 5 + 1, "all-reduce": 1}
    assert sizes == {"all-gather": 30 * 64 + 5 * 32 + 128, "all-reduce": 4}


def test_data_parallel_adapters_exchange_next_to_nothing(capsys):
    arguments = "--shape=toy --adapters=2 --rows=2 --length=12 --rank=2 --remat=full"
    collectives.main([*arguments.split(), "--meshes=2,1,1/1,2,1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    moved = {line.split("|")[1].strip(): float(line.split("|")[-3]) for line in lines[2:]}
    assert moved["2, 1, 1"] < 0.001  # the losses
    assert moved["1, 2, 1"] > 0.01  # the base, gathered layer by layer


def test_a_mesh_that_does_not_fit_is_one_line(monkeypatch):
    options = "--shape=toy --meshes=1,3,1 --adapters=2 --rows=3 --length=16".split()
    monkeypatch.setattr(sys, "argv", ["collectives.py", *options])
    with pytest.raises(SystemExit, match=r"^error: .* cannot be cut into config.mesh.fsdp=3"):
        runpy.run_path(collectives.__file__, run_name="__main__")
