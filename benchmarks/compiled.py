"""What a compiled program sends between devices and copies within one, read off its text.

Loops are multiplied out. One of unknown length counts as a single iteration: of a decoder's, what
is inside is the work of a step.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
COPIES = ("copy", "slice", "concatenate", "transpose")
ITEM_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}

# What moves numbers without computing any.
_MOVES = {
    "copy": "copy",
    "slice": "slice",
    "dynamic-slice": "slice",
    "concatenate": "concatenate",
    "transpose": "transpose",
}
_FREE = {"parameter", "constant", "bitcast", "reshape", "tuple", "get-tuple-element", "convert"}


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    result: str  # its type, such as bf16[8,128]{1,0}, or a tuple of them
    kind: str
    line: str


class Program(NamedTuple):
    """A compiled program's computations, and how often each runs."""

    bodies: dict[str, list[Instruction]]
    times: Counter  # by the name of a computation
    repeated: set[str]  # those inside a loop of unknown length


def read_program(text: str) -> Program:
    """The program whose text `compiled.as_text()` gives."""
    bodies: dict[str, list[Instruction]] = {}
    name = ""
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([^\s(]+) \(.*\{$", line)
        if header and not line.startswith(" "):
            name = "ENTRY" if header[1] else header[2]
            bodies[name] = []
        elif name and (parts := re.match(r"\s*(?:ROOT )?%?(\S+) = (.*?) ([a-z][a-z-]*)\(", line)):
            bodies[name].append(Instruction(*parts.groups(), line))
    times: Counter = Counter()
    repeated: set[str] = set()

    def visit(name: str, factor: int, again: bool) -> None:
        times[name] += factor
        if again:
            repeated.add(name)
        for instruction in bodies[name]:
            called = _called(instruction.line)
            trips: int | None = 1
            if instruction.kind == "while":
                body, condition = (bodies[called[part][0]] for part in ("body", "condition"))
                trips = _trips(instruction.line, condition, body)
            for callee in sum(called.values(), []):
                visit(callee, factor * (trips or 1), again or trips is None)

    visit("ENTRY", 1, False)
    return Program(bodies, times, repeated)


def collectives(program: Program) -> tuple[Counter, Counter]:
    """How often each collective runs, and bytes of its results on one device, by kind."""
    found = {}
    for name, instructions in program.bodies.items():
        for instruction in instructions:
            kind = instruction.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                # One that is spread over several fusions, to overlap with them, keeps its channel.
                channel = re.search(r"channel_id=(\d+)", instruction.line)
                size = _bytes_of(instruction.result, instruction.kind.endswith("-start"))
                place = channel[1] if channel else instruction.name
                found[place] = kind, program.times[name], size
    counts, sizes = Counter(), Counter()
    for kind, factor, size in found.values():
        counts[kind] += factor
        sizes[kind] += factor * size
    return counts, sizes


def copies(program: Program, in_loop: bool | None = None) -> Counter:
    """Bytes of all that is copied, sliced, put together or transposed into memory, by kind.

    Counted are the results of instructions and of fusions that do nothing else; what is moved on
    the way into a product or a sum is not, nor what goes to a memory on the chip.

    Args:
      in_loop: inside loops of unknown length alone, outside of them alone; None: everywhere.
    """
    fused = {
        callee
        for instructions in program.bodies.values()
        for instruction in instructions
        if instruction.kind == "fusion"
        for callee in _called(instruction.line)["calls"]
    }
    sizes: Counter = Counter()
    for name, instructions in program.bodies.items():
        if name in fused or (in_loop is not None and in_loop != (name in program.repeated)):
            continue
        for instruction in instructions:
            kind = _moved(instruction, program)
            if kind and "S(1)" not in instruction.result:
                size = _bytes_of(instruction.result, instruction.kind.endswith("-start"))
                sizes[kind] += program.times[name] * size
    return sizes


def estimated_cycles(program: Program, in_loop: bool | None = None) -> int:
    """What a TPU's compiler expects its operations to take, those between devices left out.

    Args:
      in_loop: as for `copies`.
    """
    return sum(
        program.times[name] * int(cycles)
        for name, instructions in program.bodies.items()
        if in_loop is None or in_loop == (name in program.repeated)
        for instruction in instructions
        for cycles in re.findall(r'"estimated_cycles":"(\d+)"', instruction.line)[:1]
    )


def _moved(instruction: Instruction, program: Program) -> str | None:
    """The kind of copy that an instruction is."""
    if instruction.kind != "fusion":
        return _MOVES.get(instruction.kind.removesuffix("-start"))
    [body] = _called(instruction.line)["calls"]
    whole = _bytes_of(instruction.result)
    # Numbers that say where a slice begins are computed, and small.
    kinds = {
        inner.kind
        for inner in program.bodies[body]
        if 64 * _bytes_of(inner.result) >= max(whole, 1)
    }
    moves = {_MOVES[kind] for kind in kinds if kind in _MOVES}
    if not moves or kinds - _FREE - set(_MOVES):
        return None
    return max(moves, key=COPIES.index)


def _called(line: str) -> dict[str, list[str]]:
    """The computations that an instruction names, by the part they play."""
    called: dict[str, list[str]] = {}
    pattern = r"(body|calls|to_apply|condition|branch_computations|\w+_computation)=(\{[^}]*\}|\S+)"
    for part, names in re.findall(pattern, line):
        called[part] = re.findall(r"[^\s,{}%()]+", names)
    return called


def _trips(loop: str, condition: list[Instruction], body: list[Instruction]) -> int | None:
    """Iterations of a loop: as the compiler knows them, else the bound its condition compares, of
    which products that are spread over devices take two at once."""
    if known := re.search(r'known_trip_count[^}]*?"n":"(\d+)"', loop):
        return int(known[1])
    bounds = _constants(condition).values()
    return math.ceil(max(bounds) / _step(condition, body)) if bounds else None


def _step(condition: list[Instruction], body: list[Instruction]) -> int:
    """What an iteration adds to the counter, 1 where it does not say so in plain words."""
    places = [each.line for each in condition if each.kind == "get-tuple-element"]
    [counter, *others] = [int(line.split("index=")[1].split(",")[0]) for line in places] or [0]
    result = re.search(r"\) tuple\((.*?)\)", body[-1].line)
    if others or not result:
        return 1
    name = re.findall(r"%(\S+?)[,)]", result[1] + ")")[counter : counter + 1]
    [line] = [each.line for each in body if [each.name] == name and each.kind == "add"] or [""]
    steps = [step for constant, step in _constants(body).items() if f"%{constant})" in line]
    return steps[0] if steps else 1


def _constants(instructions: list[Instruction]) -> dict[str, int]:
    """Whole numbers of 32 bits, by name."""
    pattern = r".*\b[su]32\[\]\S* constant\((\d+)\)"
    found = {each.name: re.match(pattern, each.line) for each in instructions}
    return {name: int(match[1]) for name, match in found.items() if match}


def _bytes_of(result: str, started: bool = False) -> int:
    """Of a result such as bf16[8,128]{1,0:T(8,128)} or a tuple; one that is only started repeats
    its operands in front, and may have numbers for its keeper at the end."""
    sizes = [
        ITEM_SIZES[kind] * math.prod(int(size) for size in shape.split(",") if size)
        for kind, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)
        if kind in ITEM_SIZES
    ]
    if started and len(sizes) > 1:
        sizes = [size for size in sizes if size > 4]
        sizes = sizes[len(sizes) // 2 :][: len(sizes) // 2]
    return sum(sizes)
