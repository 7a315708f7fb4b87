"""What the jobs of `programme.py` do: functions that yield figures the moment they are known."""

from __future__ import annotations

import functools
import itertools
import re
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import budget
import contenders
import finetune
import generate
import kernels
import numpy as np
import score
import shapes
from sizes import SIZES, budget_options

ROOT = Path(__file__).parents[1]
TEST_SECONDS = 100  # of each folder
ADAPTERS_DECODING = budget.GENERATORS
Lines = Iterator[dict[str, Any]]


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

    tasks = (("mask", 0), ("rays", 11), ("pool", 1000), ("ranks", 0))
    for (task, size), num_rows, num_objectives in itertools.product(
        tasks, SIZES[shape].candidates, SIZES[shape].objectives
    ):
        # The peers rank 1e7 rows of three objectives in minutes.
        if num_rows > 10**6 and (task == "ranks" or (task, num_objectives) == ("pool", 3)):
            continue
        case = pareto.Case(task, num_objectives, num_rows, "gauss", size)
        found = pareto.compare(case, None, budget=1.0, least_rounds=2)
        row, memory = pareto.row_of(case, found), contenders.peak_memory()
        yield {"case": [*case], "row": row, **found, "memory": memory}


def tests(path: str) -> Lines:
    """Those that need no simulated CPU devices, on whatever JAX runs on by default."""
    import jax

    platforms = {"gpu": "cuda,cpu"}.get(jax.default_backend(), jax.default_backend())
    command = [sys.executable, "-m", "pytest", path, "-m", "not slow"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    process = subprocess.Popen(
        ["env", f"JAX_PLATFORMS={platforms}", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        said, _ = process.communicate(timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it still counts what it did
        said, _ = process.communicate()
    print(said)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) ([a-z]+)", said[-300:])}
    found = {"counts": {k: counts.get(k, 0) for k in ("passed", "failed", "skipped")}}
    if process.returncode:
        failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        found["failed"] = ", ".join(failures) or said.strip().splitlines()[-1]
    yield found


def toy_run() -> Lines:
    """ParetoHqD from rows to report, on a model that knows nothing."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "paretohqd_jax.main", "--config=configs/toy.py"]
        subprocess.run([*command, f"--workdir={directory}"], cwd=ROOT, check=True)
        report = Path(directory) / "report" / "report.html"
        yield {"counts": {"passed": int(report.stat().st_size > 0), "failed": 0, "skipped": 0}}
