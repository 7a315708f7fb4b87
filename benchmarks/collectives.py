"""What programs need of each device, copy there and send to others, read off what is compiled.

    python benchmarks/collectives.py --shape=toy --meshes=2,1,1                    # a look, seconds
    python benchmarks/collectives.py --meshes=8,1,1/4,2,1/2,2,2 --adapters=8       # simulated CPUs
    python benchmarks/collectives.py --shape=llama2-7b --topology=v5e:4x4 --meshes=2,4,2 \\
        --rows=8 --length=512 --remat=full
    python benchmarks/collectives.py --shape=llama2-7b --topology=h100 --meshes=1,1,1 \\
        --rows=8 --length=512 --remat=full --programs=train,prefill,decode,score

Nothing runs and no accelerator is needed. With `--topology` programs are compiled ahead of time,
for a TPU slice, which needs libtpu (pip install "jax[tpu]"), or for one H100, which needs JAX's
CUDA plugin (pip install "jax[cuda12]"); without, for as many simulated CPU devices as the mesh asks
for. A mesh is given as data,fsdp,tensor.

Bytes are those of results on one device, times the iterations of the loops around them, of a
decoding step alone where that is what is repeated. Copies are what stands in memory and is nothing
but copied, sliced, put together or transposed; "least" is what must move at any rate. Of known
chips a third table has seconds: the larger of arithmetic and memory at the data sheet's figures,
what XLA expects its operations to take (a TPU's alone, without the exchange), and the exchange at
the bandwidth of all of a chip's links.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import contenders
import finetune
import programs
import shapes
from compiled import (
    COLLECTIVES,
    COPIES,
    Program,
    collectives,
    copies,
    estimated_cycles,
    read_program,
)

from paretohqd_jax.errors import InputError


def meshes_of(text: str) -> list[list[int]]:
    meshes = [contenders.counts(sizes) for sizes in text.split("/")]
    if any(len(sizes) != 3 for sizes in meshes):
        raise argparse.ArgumentTypeError(f"{text!r}: a mesh is DATA,FSDP,TENSOR")
    return meshes


def programs_of(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(programs.PROGRAMS):
        raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is none of {list(programs.PROGRAMS)}")
    return names


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    finetune.add_options(parser)
    parser.add_argument("--topology", help="h100, or a TPU slice such as v5e:4x4; default: CPUs")
    parser.add_argument(
        "--programs", type=programs_of, default="train", help=", ".join(programs.PROGRAMS)
    )
    parser.add_argument("--slots", type=contenders.count, default=128, help="decoded together")
    parser.add_argument("--seats", type=contenders.count, default=3, help="adapters decoding")
    parser.add_argument("--prompt", type=contenders.count, default=128, help="tokens per prompt")
    parser.add_argument("--new_tokens", type=contenders.count, default=128)
    parser.add_argument(
        "--meshes", type=meshes_of, default="8,1,1/4,2,1/2,2,2", help="data,fsdp,tensor / ..."
    )
    return parser.parse_args(arguments)


def target_devices(topology: str | None, needed: int) -> list[Any]:
    """The devices to compile for; to be called before anything else uses JAX."""
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    if topology == "h100":
        chip = (Path(__file__).parent / "h100.txtpb").read_text()
        one = "1x1x1"
        return topologies.get_topology_desc(one, "cuda", target_config=chip, topology=one).devices
    if topology:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        return topologies.get_topology_desc(topology, "tpu").devices
    jax.config.update("jax_num_cpu_devices", max(needed, jax.config.jax_num_cpu_devices))
    return jax.devices()


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.topology == "h100":  # no kernel can be timed
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    devices = target_devices(options.topology, max(math.prod(mesh) for mesh in options.meshes))

    from paretohqd_jax.training.mesh import make_mesh

    print(contenders.environment(options.threads, ("jax", "flax", "libtpu")))
    config, lora = shapes.model_of(options)
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), adapters of rank "
        f"{lora.rank} on {options.targets}; train: {options.adapters} adapters, {options.rows} x "
        f"{options.length} tokens each in {options.microbatches} microbatches, remat "
        f"{options.remat}, attention {options.attention}; decode: {options.slots} slots of "
        f"{options.prompt} + {options.new_tokens} tokens, {options.seats} adapters; "
        f"{options.topology or 'simulated CPU devices'}.\n"
    )
    sent, copied, timed = [], [], []
    for sizes, program in itertools.product(options.meshes, options.programs):
        start = time.perf_counter()
        mesh = make_mesh(*sizes, devices=devices[: math.prod(sizes)])
        compiled = programs.compile_program(program, options, mesh)
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        read = read_program(compiled.as_text())
        counts, moved = collectives(read)
        each = [f"{counts[k]} ({moved[k] / 1e6:.2f})" if counts[k] else "0" for k in COLLECTIVES]
        name = [", ".join(str(size) for size in sizes), program]
        sent.append(
            [
                *name,
                f"{memory.argument_size_in_bytes / 1e6:.0f}",
                f"{memory.temp_size_in_bytes / 1e6:.0f}",
                *each,
                f"{sum(moved.values()) / 1e6:.2f}",
                f"{seconds:.0f}",
            ]
        )
        least = programs.least_bytes(program, options, mesh)
        inside = copies(read, in_loop=True if read.repeated else None)
        outside = copies(read, in_loop=False) if read.repeated else Counter()
        copied.append(
            [
                *name,
                f"{least / 1e6:.0f}",
                *(f"{inside[kind] / 1e6:.1f}" for kind in COPIES),
                f"{sum(inside.values()) / least:.1%}",
                f"{sum(outside.values()) / 1e6:.1f}",
            ]
        )
        timed.append([*name, *_seconds(devices[0].device_kind, program, options, mesh, read)])
    header = ["data, fsdp, tensor", "program", "arguments MB", "temporaries MB"]
    header += [f"{kind}s (MB)" for kind in COLLECTIVES] + ["moved MB", "compile s"]
    print(contenders.table(header, sent))
    header = ["data, fsdp, tensor", "program", "least MB"]
    header += [f"{plural} MB" for plural in ("copies", "slices", "concatenations", "transposes")]
    print("\n" + contenders.table([*header, "of the least", "once per call MB"], copied))
    if devices[0].device_kind in shapes.CHIPS:
        header = ["data, fsdp, tensor", "program", "least ms", "XLA's estimate ms", "exchange ms"]
        print("\n" + contenders.table(header, timed))


def _seconds(
    kind: str, program: str, options: argparse.Namespace, mesh: Any, read: Program
) -> list[str]:
    """Milliseconds of a program, or of a step of one that is repeated, on a chip of this kind."""
    if kind not in shapes.CHIPS:
        return []
    flops, bandwidth = shapes.CHIPS[kind]
    arithmetic = programs.least_flops(program, options) / mesh.size / flops
    memory = programs.least_bytes(program, options, mesh) / bandwidth
    cells = [f"{max(arithmetic, memory) * 1e3:.1f}"]
    if kind not in shapes.TPU_CLOCKS:
        return [*cells, "–", "–"]
    cycles = estimated_cycles(read, in_loop=True if read.repeated else None)
    moved = sum(collectives(read)[1].values())
    return [
        *cells,
        f"{cycles / shapes.TPU_CLOCKS[kind] * 1e3:.1f}",
        f"{moved / shapes.TPU_LINKS[kind] * 1e3:.1f}",
    ]


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
