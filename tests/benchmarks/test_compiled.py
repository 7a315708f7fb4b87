"""Collectives and copies are counted with the loops around them."""

from __future__ import annotations

import pytest
from compiled import collectives, copies, estimated_cycles, read_program

PROGRAM = """HloModule jit_f, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%body.1 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %ag = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  ROOT %t = (s32[], f32[4,8]) tuple(%i, %y)
}

%fused_transpose (q: f32[4,8]) -> f32[8,4] {
  %q = f32[4,8] parameter(0)
  ROOT %t.1 = f32[8,4]{1,0} transpose(%q), dimensions={1,0}
}

%fused_sum (q: f32[4,8]) -> f32[8,4] {
  %q.1 = f32[4,8] parameter(0)
  %t.2 = f32[8,4]{1,0} transpose(%q.1), dimensions={1,0}
  ROOT %add.1 = f32[8,4]{1,0} add(%t.2, %t.2)
}

%token (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %joined = f32[4,16] concatenate(%x, %x), dimensions={1}, backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %tt = (s32[], f32[4,8]) tuple(%i, %y)
}

%more (p: (s32[], f32[4,8])) -> pred[] {
  ROOT %any = pred[] compare(%i, %limit), direction=LT
}

%fused (x: f32[4,8]) -> bf16[16] {
  ROOT %p.1 = bf16[16]{0} all-gather(%x), channel_id=3, dimensions={0}
}

%body.2 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %piece = bf16[1,8]{1,0} dynamic-slice(%x, %i, %j), dynamic_slice_sizes={1,8}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %p.2 = bf16[16]{0} all-gather(%x), channel_id=3, dimensions={0}
  ROOT %f = bf16[16] fusion(%x), kind=kLoop, calls=%fused
}

%cond.1 (p: (s32[], f32[4,8])) -> pred[] {
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%cond.2 (p: (f32[4,8], u32[])) -> pred[] {
  %bound = u32[]{:T(128)} constant(7)
  %no_bound = f32[]{:T(128)} constant(64)
  %counter = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %below = pred[]{:T(512)} compare(%counter, %bound), direction=LT
}

%windows (p: (f32[4,8], u32[])) -> (f32[4,8], u32[]) {
  %count = u32[]{:T(128)} get-tuple-element(%p), index=1
  %two = u32[]{:T(128)} constant(2)
  %sent = (f32[4,8], f32[4,8], u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=9
  %next = u32[]{:T(128)} add(%count, %two)
  ROOT %both = (f32[4,8], u32[]{:T(128)}) tuple(%x, /*index=1*/%next)
}

ENTRY %main (p: f32[4,8]) -> f32[] {
  %r = (f32[4,8], u32[]) while(%t1), condition=%cond.2, body=%windows
  %w = (s32[], f32[4,8]) while(%t0), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"30"}}
  %v = (s32[], f32[4,8]) while(%t0), condition=%cond.1, body=%body.2
  %u = (s32[], f32[4,8]) while(%t0), condition=%more, body=%token
  %summed = f32[8,4] fusion(%p), kind=kLoop, calls=%fused_sum
  %s = (f32[2,8], f32[4,8]) all-gather-start(%z), dimensions={0}
  %d = f32[4,8] all-gather-done(%s)
  %on_chip = f32[4,8]{1,0:T(8,128)S(1)} copy(%p)
  %turned = f32[8,4] fusion(%p), kind=kLoop, calls=%fused_transpose
  ROOT %all-reduce.5 = f32[] all-reduce(%q), to_apply=%sum
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def program():
    return read_program(PROGRAM)


def test_loops_multiply_what_runs_inside(program):
    counts, sizes = collectives(program)
    assert counts == {"all-gather": 30 + 5 + 1, "all-reduce": 1, "collective-permute": 4}
    gathered = 30 * 64 + 5 * 32 + 128
    assert sizes == {"all-gather": gathered, "all-reduce": 4, "collective-permute": 4 * 128}


def test_copies_are_what_is_computed_from_by_nothing(program):
    """A transpose within a sum is none, nor is a copy to a memory on the chip."""
    assert copies(program) == {"slice": 5 * 16, "transpose": 128, "concatenate": 256}
    assert copies(program, in_loop=True) == {"concatenate": 256}


def test_cycles_are_those_of_all_iterations(program):
    assert estimated_cycles(program) == 5 * 100 + 7
    assert estimated_cycles(program, in_loop=True) == 7
