"""What `device.py` measures, in order of worth: jobs that have a process and the device each."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import budget
import contenders
import finetune
import generate
import kernels
import numpy as np
import score
import shapes

ROOT = Path(__file__).parents[1]
PARTS = {
    "peaks": "what the chip does",
    "a": "it runs: tests and a whole run",
    "b": "training",
    "c": "decoding",
    "d": "scoring",
    "e": "Pareto",
    "f": "the whole task",
    "g": "longest kernels of b and c",
}
Lines = Iterator[dict[str, Any]]
# Beside torch, or another process, JAX takes no more memory than it needs.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Job(NamedTuple):
    """Something to measure."""

    part: str
    name: str
    run: Callable[[], Lines]  # figures, the moment they are known
    seconds: int  # that it should take, the start of its process included
    environment: dict[str, str] = {}
    profiled: bool = False  # part g too


class Sizes(NamedTuple):
    """How much work there is at a shape."""

    rank: int
    rows: int  # of each adapter and training step
    length: int
    stacks: tuple[int, int, int]  # adapters trained together
    prompts: tuple[int, ...]  # for each of three adapters
    prompt: int  # tokens
    new_tokens: int
    scorer: str  # of score.py
    scored: int
    batches: tuple[int, int]  # ours and that of transformers
    candidates: tuple[int, ...]  # rows in Pareto's order
    product: int  # side of a square matrix product
    copied: int  # numbers in an array to copy
    rounds: int
    tests: tuple[str, ...]


SIZES = {
    "toy": Sizes(
        2, 2, 16, (1, 2, 3), (2,), 8, 4, "toy", 16, (4, 4), (20_000,), 512, 2**22, 1,
        ("tests/pareto/test_preference.py",),
    ),
    "llama2-7b": Sizes(
        64, 8, 512, (1, 4, 11), (24, 80), 128, 128, "gpt2-large", 4096, (128, 128), (10**6, 10**7),
        8192, 2**30, 3, ("tests/pareto", "tests/models", "tests/training", "tests/sampling"),
    ),
}  # fmt: skip
ADAPTERS_DECODING = budget.GENERATORS


def jobs(shape: str) -> list[Job]:
    """All jobs, the most wanted first; a call that is cut short has done those."""
    sizes = SIZES[shape]
    one, some, all_of_them = sizes.stacks
    few, *many = sizes.prompts
    trained = functools.partial(train, shape)
    found = [
        Job("peaks", "peaks", functools.partial(peaks, shape), 25),
        Job("b", f"{some} adapters, full", functools.partial(trained, some, profiled=True), 90,
            profiled=True),
        Job("c", f"3 x {few} rows", functools.partial(decode, shape, few, profiled=True), 80,
            profiled=True),
        Job("b", "PEFT, one adapter", functools.partial(peft, shape), 50, SHARED),
        Job("c", f"transformers, {3 * few} rows", functools.partial(transformers, shape), 50,
            SHARED),
        Job("b", "one adapter, full", functools.partial(trained, one), 50),
        Job("d", "ours", functools.partial(scored, shape, 0), 50),
        Job("d", "transformers", functools.partial(scored, shape, sizes.batches[1]), 40,
            SHARED),
        Job("d", "transformers, batch 1", functools.partial(scored, shape, 1), 30, SHARED),
        Job("f", "forward pass, ours", functools.partial(forward, shape, budget.forward), 30),
        Job("f", "selection", functools.partial(select, shape), 20),
        Job("e", "Pareto", functools.partial(pareto_cases, shape), 100),
        Job("b", f"{all_of_them} adapters in two microbatches, full",
            functools.partial(trained, all_of_them, microbatches=2), 90),
        Job("a", "toy run", toy_run, 60, SHARED),
    ]  # fmt: skip
    found += [Job("a", path, functools.partial(tests, path), 60, SHARED) for path in sizes.tests]
    if shape == "toy":
        return [job._replace(seconds=5) for job in found]
    return [
        *found,
        Job("b", f"{some} adapters, full, cudnn",
            functools.partial(trained, some, attention="cudnn"), 70),
        *(Job("c", f"3 x {rows} rows", functools.partial(decode, shape, rows), 70)
          for rows in many),
        Job("b", "one adapter, none", functools.partial(trained, one, remat="none"), 50),
        Job("b", "one adapter, dots", functools.partial(trained, one, remat="dots"), 50),
        Job("b", f"{some} adapters of {sizes.rows // some} rows each, full",
            functools.partial(trained, some, rows=sizes.rows // some), 60),
        Job("b", "PEFT, one adapter, no checkpointing",
            functools.partial(peft, shape, remat="none"), 40, SHARED),
        Job("f", "forward pass, transformers",
            functools.partial(forward, shape, budget.torch_forward), 40, SHARED),
        Job("c", f"3 x {few} rows, loops as command buffers",
            functools.partial(decode, shape, few), 70,
            {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"}),
    ]  # fmt: skip


def budget_options(shape: str) -> Namespace:
    """The options that the stages of `budget.projection` are measured with."""
    sizes = SIZES[shape]
    return budget.parse(
        [
            *(f"--shape={shape}", f"--rank={sizes.rank}", f"--adapters={sizes.stacks[1]}"),
            *(f"--rows={sizes.rows}", f"--length={sizes.length}", "--remat=full"),
            *(f"--new_tokens={sizes.new_tokens}", f"--rounds={sizes.rounds}"),
        ]
    )


def figures(measured: contenders.Measurement, work: list[list[float]], amount: float) -> dict:
    """What all timed jobs tell.

    Args:
      measured: rounds of it.
      work: FLOPs and bytes at least of each phase of a round.
      amount: tokens or rows of a round.
    """
    return {
        "first": measured.first,
        "seconds": measured.seconds,
        "memory": measured.memory,
        "work": work,
        "amount": amount,
    }


def peaks(shape: str) -> Lines:
    """The data sheet's figures, or what a CPU reached, and what a product and a copy reach."""
    import jax
    import jax.numpy as jnp

    sizes, options = SIZES[shape], budget_options(shape)
    _, flops, bandwidth = shapes.machine_peaks(options)
    dtype = shapes.model_of(options)[0].dtype
    matrix = jax.random.normal(jax.random.key(0), (sizes.product, sizes.product), dtype)
    numbers = jnp.ones(sizes.copied, jnp.float32)
    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    product = shapes.fastest(lambda: multiply(matrix, matrix).block_until_ready())
    copying = shapes.fastest(lambda: copy(numbers).block_until_ready())
    yield {
        "flops": flops,
        "bandwidth": bandwidth,
        "product_flops": 2 * sizes.product**3 / product,
        "copy_bandwidth": 2 * numbers.nbytes / copying,
        "memory_limit": (jax.devices()[0].memory_stats() or {}).get("bytes_limit"),
    }


def train(
    shape: str,
    adapters: int,
    remat: str = "full",
    attention: str = "xla",
    microbatches: int = 1,
    rows: int = 0,
    profiled: bool = False,
) -> Lines:
    """Steps of a stack of adapters."""
    import jax

    from paretohqd_jax.models.llama import Llama
    from paretohqd_jax.training.memory import training_memory
    from paretohqd_jax.training.mesh import make_mesh

    options = Namespace(**vars(budget_options(shape)))
    options.remat, options.attention, options.microbatches = remat, attention, microbatches
    options.adapters, options.rows = adapters, rows or options.rows
    make = functools.partial(finetune.ours, num_adapters=adapters)
    measured, step = contenders.measure_here(make, options, options.rounds)
    config, lora = shapes.model_of(options, remat)
    estimate = training_memory(
        Llama(config, lora), make_mesh(devices=jax.devices()[:1]), num_adapters=adapters,
        batch_size=options.rows, length=options.length, num_microbatches=microbatches,
    )  # fmt: skip
    on_device = jax.default_backend() != "cpu"  # the memory of a host's process holds it all
    told = {"estimate": estimate.total} if on_device else {}
    yield _training(options, measured, adapters) | told
    if profiled:
        yield {"part": "g", "kernels": kernels.longest_kernels(step)}


def peft(shape: str, remat: str = "full") -> Lines:
    """transformers with PEFT, one adapter."""
    options = budget_options(shape)
    options.remat = remat
    measured, _ = contenders.measure_here(finetune.peft, options, options.rounds)
    yield _training(options, measured, 1)


def _training(options: Namespace, measured: contenders.Measurement, adapters: int) -> dict:
    config, lora = shapes.model_of(options)
    rows = adapters * options.rows
    flops = shapes.training_flops(config, lora, rows, options.length)
    told = figures(measured, [[flops, 0]], rows * options.length)
    return told | {"loss": measured.result}


def decode(shape: str, prompts: int, profiled: bool = False) -> Lines:
    """Three adapters answering the same prompts."""
    options = _decoding(shape, prompts)
    measured, step = contenders.measure_here(generate.stacked, options, options.rounds)
    yield _decoded(options, measured, options.adapters)
    if profiled:
        yield {"part": "g", "kernels": kernels.longest_kernels(step)}


def transformers(shape: str) -> Lines:
    """`transformers.generate` on as many rows, without an adapter."""
    options = _decoding(shape, ADAPTERS_DECODING * SIZES[shape].prompts[0])
    measured, _ = contenders.measure_here(generate.transformers, options, options.rounds)
    yield _decoded(options, measured, 0)


def _decoding(shape: str, prompts: int) -> Namespace:
    options = Namespace(**vars(budget_options(shape)))
    options.rows, options.length = prompts, SIZES[shape].prompt
    options.adapters = ADAPTERS_DECODING
    return options


def _decoded(options: Namespace, measured: contenders.Measurement, adapters: int) -> dict:
    """Tokens of a few responses too: without training all adapters answer like the base."""
    config, lora = shapes.model_of(options)
    stack = max(adapters, 1)
    prefill, steps = generate.phases(config, lora if adapters else None, stack, options)
    told = figures(measured, [prefill, steps], stack * options.rows * options.new_tokens)
    return told | {"answers": np.asarray(measured.result)[:4, :16].tolist()}


def scored(shape: str, peer_batch: int) -> Lines:
    """A GPT-2 reward model: ours, or transformers at a batch size; batch 1 on a few rows."""
    sizes = SIZES[shape]
    options = score.parse(
        [f"--shape={sizes.scorer}", f"--rows={sizes.scored}", f"--batch_size={sizes.batches[0]}"]
    )
    options.dtype = shapes.SHAPES[shape].dtype
    if peer_batch == 1:
        options.rows = max(sizes.scored // 16, 1)
    make = functools.partial(score.torch_scores, peer_batch) if peer_batch else score.ours
    measured, _ = contenders.measure_here(make, options, 1)
    yield figures(measured, [[score.flops_of(options), 0]], options.rows)


def forward(shape: str, make: contenders.Make) -> Lines:
    """Log-probabilities under the language model, as a scorer needs them."""
    options = budget_options(shape)
    measured, _ = contenders.measure_here(make, options, options.rounds)
    config, _ = shapes.model_of(options)
    flops = shapes.forward_flops(config, None, options.rows, options.length)
    yield figures(measured, [[flops, 0]], options.rows)


def select(shape: str) -> Lines:
    options = budget_options(shape)
    measured, _ = contenders.measure_here(budget.select, options, options.rounds)
    yield figures(measured, [], budget.DATA_ROWS)


def pareto_cases(shape: str) -> Lines:
    """Ours on the device and on its host's CPU, and the peers there."""
    import pareto

    for num_rows in SIZES[shape].candidates:
        for num_objectives in (2, 3):
            for task, size in (("mask", 0), ("pool", 1000), ("ranks", 0), ("rays", 11)):
                # The peers rank 1e7 rows of three objectives in minutes.
                if num_rows > 10**6 and (task == "ranks" or (task, num_objectives) == ("pool", 3)):
                    continue
                case = pareto.Case(task, num_objectives, num_rows, "gauss", size)
                found = pareto.compare(case, None, budget=1.0, least_rounds=2)
                yield {
                    "case": [*case],
                    "row": pareto.row_of(case, found),
                    **found,
                    "memory": contenders.peak_memory(),
                }


def tests(path: str) -> Lines:
    """Those that need no simulated CPU devices, on whatever JAX runs on by default."""
    import jax

    platforms = {"gpu": "cuda,cpu"}.get(jax.default_backend(), jax.default_backend())
    command = [sys.executable, "-m", "pytest", path, "-m", "not slow and not cpu"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    ran = subprocess.run(
        ["env", f"JAX_PLATFORMS={platforms}", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    print(ran.stdout)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", ran.stdout[-300:])}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE)
    yield {"counts": {k: counts.get(k, 0) for k in ("passed", "failed", "skipped")}} | (
        {"failed": "\n".join(failures) or ran.stdout[-500:]} if ran.returncode else {}
    )


def toy_run() -> Lines:
    """ParetoHqD from rows to report, on a model that knows nothing."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "paretohqd_jax.main", "--config=configs/toy.py"]
        subprocess.run([*command, f"--workdir={directory}"], cwd=ROOT, check=True)
        report = Path(directory) / "report" / "report.html"
        yield {"counts": {"passed": int(report.stat().st_size > 0), "failed": 0, "skipped": 0}}
