"""The device hours of the paper's whole task, projected from stage throughputs measured here.

    python benchmarks/budget.py --shape=toy                                    # a look, minutes
    python benchmarks/budget.py --shape=llama2-7b --rows=8 --length=512 --remat=full

The task is ParetoHqD on Llama-2-7B with 11 preferences, for which the paper (arXiv 2504.16628)
reports 55.87 GPU hours. Every assumption about it is printed. Weights are random: time does not
depend on them.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import contenders
import finetune
import generate
import numpy as np
import shapes

PAPER_HOURS = 55.87
# The paper's settings, or RiC's (arXiv 2402.10207) where it is silent.
PREFERENCES, STEPS, ROWS, LENGTH = 11, 200, 8, 512
GENERATORS, PROMPTS, NEW_TOKENS = 3, 10_000, 128
DATA_ROWS, REWARD_MODELS, REWARD_WEIGHTS, SCORED_LENGTH = 291_397, 2, 774e6, 256

ASSUMPTIONS = f"""
* Training: {PREFERENCES} preferences, 2 stages of {STEPS} steps of {ROWS} rows, every row padded
  to {LENGTH} tokens (the longest the data allows), rank 64 on all linear layers.
* Generation: {GENERATORS} models, {PROMPTS} prompts, {NEW_TOKENS} new tokens each (no response ends
  early), at the best of the batch sizes tried; prompts of the benchmark's length.
* Scoring: {DATA_ROWS} rows of the data set and {GENERATORS * PROMPTS} generated ones of
  {SCORED_LENGTH} tokens each, by {REWARD_MODELS} reward models of {REWARD_WEIGHTS / 1e6:.0f} M
  weights (GPT-2 large) at the FLOP utilisation of our own forward pass. Whether the paper's hours
  hold the scoring of the data is not known.
* Selection: {DATA_ROWS} rows, timed on this machine.
* Compilation: once per program and stage. Not included: reading the weights, evaluation.
"""


def forward(options: argparse.Namespace) -> Callable[[], float]:
    """Log-probabilities of a batch, the work of a reward model or of scoring."""
    import jax

    from paretohqd_jax.models.llama import Llama, output_embedding
    from paretohqd_jax.models.log_probs import token_log_probs

    config, _ = shapes.model_of(options)
    params = shapes.jax_params(config)
    tokens = finetune.rows_of(options)[0][0]

    @jax.jit
    def log_probs(params, tokens):
        hidden, _ = Llama(config).apply({"params": params}, tokens)
        return token_log_probs(hidden, output_embedding(params, config), tokens).mean()

    return lambda: float(log_probs(params, tokens))


def torch_forward(options: argparse.Namespace) -> Callable[[], float]:
    """The same by transformers."""
    import torch

    config, _ = shapes.model_of(options)
    device = shapes.torch_device(options)
    model = shapes.torch_model(config, device).eval()
    tokens = torch.tensor(finetune.rows_of(options)[0][0], device=device).long()

    def log_probs() -> float:
        with torch.inference_mode():
            logits = model(input_ids=tokens).logits[:, :-1].float()
            normaliser = torch.logsumexp(logits, dim=-1)
            chosen = logits.gather(-1, tokens[:, 1:, None])[..., 0]
            return (chosen - normaliser).mean().item()

    return log_probs


def select(options: argparse.Namespace) -> Callable[[], float]:
    from paretohqd_jax import pareto

    rewards = np.random.default_rng(0).normal(size=(DATA_ROWS, REWARD_MODELS)).astype(np.float32)
    preferences = pareto.preference_grid(PREFERENCES, REWARD_MODELS)
    return lambda: float(pareto.select(rewards, preferences, 100, 1100).row_ids[0, 0])


def decode(options: argparse.Namespace, rows: int) -> Callable:
    """All generators answer `rows` prompts."""
    return generate.stacked(argparse.Namespace(**{**vars(options), "rows": rows, "adapters": 3}))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    finetune.add_options(parser)
    parser.add_argument(
        "--batches", type=contenders.counts, default="8,32,64,128", help="prompts per batch to try"
    )
    parser.add_argument("--new_tokens", type=contenders.count, default=NEW_TOKENS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options, ("jax", "flax"))
    config, _ = shapes.model_of(options)
    makes = {"train": finetune.stacked, "forward": forward, "select": select}
    makes |= {f"decode {rows}": functools.partial(decode, rows=rows) for rows in options.batches}
    start = time.perf_counter()
    found = contenders.measure(makes, options, rounds=options.rounds, alone=True)
    device, peak_flops, bandwidth = shapes.machine_peaks(options)
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}) on {device}: "
        f"{peak_flops / 1e12:.2f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s. "
        f"Measured in {time.perf_counter() - start:.0f} s.\n{ASSUMPTIONS}"
    )
    failed = {name: why for name, why in found.items() if isinstance(why, str)}
    for name, why in failed.items():
        print(f"{name}: not measured: {why}")
    good = {name: measured for name, measured in found.items() if name not in failed}
    decodes = {rows: good[f"decode {rows}"] for rows in options.batches if f"decode {rows}" in good}
    if {"train", "forward", "select"} - set(good) or not decodes:
        raise SystemExit("no projection: a stage could not be measured")
    print(contenders.table(*projection(options, good, decodes, peak_flops)))


def projection(
    options: argparse.Namespace,
    found: dict[str, contenders.Measurement],
    decodes: dict[int, contenders.Measurement],
    peak_flops: float,
) -> tuple[list[str], list[list[str]]]:
    """The table's header and rows.

    Args:
      options: those that `found` was measured with.
      found: a training step of all adapters, a forward pass and a selection.
      decodes: decoding by the prompts of a batch.
      peak_flops: the device's.
    """
    config, lora = shapes.model_of(options)
    trained_tokens = PREFERENCES * 2 * STEPS * ROWS * LENGTH
    training_rate = options.adapters * options.rows * options.length / found["train"].median
    training_flops = shapes.training_flops(config, lora, 1, options.length) / options.length

    new_tokens = GENERATORS * PROMPTS * NEW_TOKENS
    rates = {
        rows: GENERATORS * rows * options.new_tokens / measured.median
        for rows, measured in decodes.items()
    }
    best = max(rates, key=rates.get)

    flops = shapes.forward_flops(config, None, options.rows, options.length)
    utilisation = flops / found["forward"].median / peak_flops
    scored_tokens = (DATA_ROWS + GENERATORS * PROMPTS) * SCORED_LENGTH * REWARD_MODELS
    scoring_rate = utilisation * peak_flops / (2 * REWARD_WEIGHTS)

    compile_seconds = sum(
        max(each.first - each.median, 0.0) * times
        for each, times in (
            (found["train"], 2),
            (found["forward"], REWARD_MODELS),
            (decodes[best], 1),
        )
    )
    stages = [
        ("training, two stages", trained_tokens, training_rate, training_rate * training_flops),
        (f"generation, batch {GENERATORS} x {best}", new_tokens, rates[best], None),
        ("scoring", scored_tokens, scoring_rate, utilisation * peak_flops),
    ]
    rows, total = [], 0.0
    for name, tokens, rate, achieved in stages:
        total += tokens / rate
        share = f"{achieved / peak_flops:.1%}" if achieved else "–"
        rows.append(
            [name, f"{tokens / 1e6:.2f} M", f"{rate:.0f}", share, f"{tokens / rate / 3600:.3f}"]
        )
    for name, seconds in (
        ("selection, two stages", 2 * found["select"].median),
        ("compilation", compile_seconds),
    ):
        total += seconds
        rows.append([name, "–", "–", "–", f"{seconds / 3600:.3f}"])
    rows.append(["**whole task**", "", "", "", f"**{total / 3600:.2f}**"])
    rows.append(["the paper's, on its GPUs", "", "", "", f"{PAPER_HOURS}"])
    return ["stage", "tokens", "tokens/s", "model FLOP utilisation", "device hours"], rows


if __name__ == "__main__":
    main()
