"""What a train step needs of each device and sends between them, read off the compiled program.

    python benchmarks/collectives.py --shape=toy --meshes=2,1,1                    # a look, seconds
    python benchmarks/collectives.py --meshes=8,1,1/4,2,1/2,2,2 --adapters=8       # simulated CPUs
    python benchmarks/collectives.py --shape=llama2-7b --topology=v5e:4x4 --meshes=2,4,2 \\
        --rows=8 --length=512 --remat=full

Nothing runs and no accelerator is needed. With `--topology` the program is compiled ahead of time
for a TPU slice, which needs libtpu (pip install "jax[tpu]"); without, for as many simulated CPU
devices as the mesh asks for. A mesh is given as data,fsdp,tensor. The bytes of a collective are
those of its result on one device, times the iterations of the loops around it.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections import Counter
from typing import Any

import contenders
import finetune
import shapes

from paretohqd_jax.errors import InputError

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
ITEM_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}


def compile_step(options: argparse.Namespace, mesh: Any) -> Any:
    """The train step of all adapters, compiled for the mesh from shapes alone."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from paretohqd_jax.data.batches import Examples
    from paretohqd_jax.models import llama, lora
    from paretohqd_jax.training import step
    from paretohqd_jax.training.mesh import RULES
    from paretohqd_jax.training.placement import place_training

    config, lora_config = shapes.model_of(options, options.remat)
    model = llama.Llama(config, lora_config)
    optimizer = step.make_optimizer(step.OptimizerConfig(1e-4, num_steps=1000))
    # Shapes alone: `training.mesh.sharded` would put small constants on devices that may not exist.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        placement = place_training(mesh, model, optimizer, options.adapters, options.rows)

        def arguments() -> tuple[Any, ...]:
            key = jax.random.key(0)
            stack = lora.init_adapters(key, config, lora_config, placement.num_slots)
            rows = jnp.zeros((placement.num_slots, options.rows, options.length), jnp.int32)
            batch = Examples(rows, rows > 0, rows > 0)
            keys = jax.random.split(key, placement.num_slots)
            return step.init_train_state(stack, optimizer), batch, keys

        state, batch, keys = jax.eval_shape(arguments)
        train_step = step.make_train_step(
            model, optimizer, placement.step, num_microbatches=options.microbatches
        )
        return train_step.lower(state, llama.param_shapes(config), batch, keys).compile()


def collectives(program: str) -> tuple[Counter, Counter]:
    """How often each collective runs, and bytes of its results, by kind, from a program's text."""
    bodies = _computations(program)
    times = _times_run(bodies)
    found = {}
    for name, lines in bodies.items():
        for line in lines:
            parts = re.match(r"\s*(?:ROOT )?%?(\S+) = (.*?) ([a-z-]+)\(", line)
            kind = parts and parts[3].removesuffix("-start")
            if kind in COLLECTIVES:
                # One that is spread over several fusions, to overlap with them, keeps its channel.
                channel = re.search(r"channel_id=(\d+)", line)
                size = _bytes_of(parts[2], parts[3].endswith("-start"))
                found[channel[1] if channel else parts[1]] = kind, times[name], size
    counts, sizes = Counter(), Counter()
    for kind, factor, size in found.values():
        counts[kind] += factor
        sizes[kind] += factor * size
    return counts, sizes


def _computations(program: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        header = re.match(r"(ENTRY )?%?([^\s(]+) \(.*\{$", line)
        if header and not line.startswith(" "):
            name = "ENTRY" if header[1] else header[2]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def _times_run(bodies: dict[str, list[str]]) -> Counter:
    """How often each computation runs, loops of known length multiplied out."""
    times: Counter = Counter()

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for line in bodies[name]:
            called = re.findall(r"(body|calls|to_apply|condition)=%?([^\s,)}]+)", line)
            trips = _trips(line, bodies[dict(called)["condition"]]) if " while(" in line else 1
            for _, callee in called:
                visit(callee, factor * trips)

    visit("ENTRY", 1)
    return times


def _trips(loop: str, condition: list[str]) -> int:
    """Iterations of a loop: as the compiler knows them, else the bound its condition compares."""
    known = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', loop)
    bounds = [int(n) for line in condition for n in re.findall(r"s32\[\]\S* constant\((\d+)", line)]
    return int(known[1]) if known else max(bounds, default=1)


def _bytes_of(result: str, started: bool) -> int:
    """Of a result such as bf16[8,128]{1,0:T(8,128)} or a tuple; one that is only started repeats
    its operands in front."""
    sizes = [
        ITEM_SIZES[kind] * math.prod(int(size) for size in shape.split(",") if size)
        for kind, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", result)
        if kind in ITEM_SIZES
    ]
    if started and len(sizes) > 1:
        sizes = sizes[len(sizes) // 2 :][: len(sizes) // 2]
    return sum(sizes)


def meshes_of(text: str) -> list[list[int]]:
    meshes = [contenders.counts(sizes) for sizes in text.split("/")]
    if any(len(sizes) != 3 for sizes in meshes):
        raise argparse.ArgumentTypeError(f"{text!r}: a mesh is DATA,FSDP,TENSOR")
    return meshes


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    finetune.add_options(parser)
    parser.add_argument("--topology", help="a TPU slice such as v5e:4x4; default: simulated CPUs")
    parser.add_argument(
        "--meshes", type=meshes_of, default="8,1,1/4,2,1/2,2,2", help="data,fsdp,tensor / ..."
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    if options.topology:
        from jax.experimental import topologies

        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        devices = topologies.get_topology_desc(options.topology, "tpu").devices
    else:
        needed = max(math.prod(mesh) for mesh in options.meshes)
        jax.config.update("jax_num_cpu_devices", max(needed, jax.config.jax_num_cpu_devices))
        devices = jax.devices()

    from paretohqd_jax.training.mesh import make_mesh

    print(contenders.environment(options.threads, ("jax", "flax", "libtpu")))
    config, lora = shapes.model_of(options)
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), {options.adapters} "
        f"adapters of rank {lora.rank} on {options.targets}, {options.rows} x {options.length} "
        f"tokens each, remat {options.remat}; {options.topology or 'simulated CPU devices'}.\n"
    )
    rows = []
    for sizes in options.meshes:
        start = time.perf_counter()
        mesh = make_mesh(*sizes, devices=devices[: math.prod(sizes)])
        compiled = compile_step(options, mesh)
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        counts, moved = collectives(compiled.as_text())
        each = [f"{counts[k]} ({moved[k] / 1e6:.2f})" if counts[k] else "0" for k in COLLECTIVES]
        rows.append(
            [
                ", ".join(str(size) for size in sizes),
                f"{memory.argument_size_in_bytes / 1e6:.0f}",
                f"{memory.temp_size_in_bytes / 1e6:.0f}",
                *each,
                f"{sum(moved.values()) / 1e6:.2f}",
                f"{seconds:.0f}",
            ]
        )
    header = ["data, fsdp, tensor", "arguments MB", "temporaries MB"]
    header += [f"{kind}s (MB)" for kind in COLLECTIVES] + ["moved MB", "compile s"]
    print(contenders.table(header, rows))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
