"""The device hours of a paper's whole task, projected from stage throughputs measured here.

    python benchmarks/budget.py --shape=toy                                    # a look, minutes
    python benchmarks/budget.py --shape=llama2-7b --rows=8 --length=512 --remat=full

The task is ParetoHqD on Llama-2-7B with 11 preferences, for which the paper (arXiv 2504.16628)
reports 55.87 GPU hours, or with --task=sipo that of configs/sipo_beavertails_llama2_7b.py, for
which SIPO's (arXiv 2502.14354) reports 81. Every assumption about it is printed. Weights are
random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import contenders
import finetune
import generate
import numpy as np
import shapes

PAPER_HOURS = {"paretohqd": 55.87, "sipo": 81.0}
# The paper's settings, or RiC's (arXiv 2402.10207) where it is silent.
PREFERENCES, STEPS, ROWS, LENGTH = 11, 200, 8, 512
GENERATORS, PROMPTS, NEW_TOKENS = 3, 10_000, 128
DATA_ROWS, REWARD_MODELS, REWARD_WEIGHTS, SCORED_LENGTH = 291_397, 2, 774e6, 256

# SIPO on BeaverTails, two objectives; texts are padded to LENGTH as well.
DPO_PAIRS, AGAIN_PAIRS = 840 * 32, 120 * 32  # of each of two adapters: steps of so many
DATA_PAIRS, SIPO_PROMPTS, WRITERS, DRAFT_TOKENS, JUDGES = 9_000, 2_500, 4, 384, 7

ASSUMPTIONS = {}
ASSUMPTIONS["paretohqd"] = f"""
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
ASSUMPTIONS["sipo"] = f"""
* Training: two adapters on {DPO_PAIRS} pairs each and then, of twice the rank, on {AGAIN_PAIRS},
  every response padded to {LENGTH} tokens; rank 64 on all linear layers, at the rate of ParetoHqD's
  training.
* Drafts: {WRITERS} mixtures of two models, {SIPO_PROMPTS} prompts, {DRAFT_TOKENS} new tokens each
  (no response ends early), at the best of the batch sizes tried; prompts of the benchmark's length.
  As in the paper for this task, answers are not reviewed.
* Likelihoods: of {DATA_PAIRS} pairs under the base model; of two responses and {WRITERS} drafts to
  each of these prompts, as if a prompt had one pair, under {JUDGES} models. At the rate of our own
  forward pass, {LENGTH} tokens each.
* Compilation: once per program and stage. Not included: reading the weights, evaluation, which may
  be in the paper's hours.
"""


class Stage(NamedTuple):
    """Of a task: how many tokens, at which rate, and operations a second where they are counted."""

    name: str
    tokens: float
    rate: float
    achieved: float | None


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
    parser.add_argument("--task", choices=PAPER_HOURS, default="paretohqd")
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
        f"Measured in {time.perf_counter() - start:.0f} s.\n"
        f"{ASSUMPTIONS[options.task]}"
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
    training_rate = options.adapters * options.rows * options.length / found["train"].median
    training_flops = shapes.training_flops(config, lora, 1, options.length) / options.length
    rates = {
        rows: GENERATORS * rows * options.new_tokens / measured.median
        for rows, measured in decodes.items()
    }
    best = max(rates, key=rates.get)
    flops = shapes.forward_flops(config, None, options.rows, options.length)
    forward_flops = flops / found["forward"].median
    forward_rate = options.rows * options.length / found["forward"].median
    training = (training_rate, training_rate * training_flops)
    batch = f"batch {GENERATORS} x {best}"

    if options.task == "sipo":
        texts = SIPO_PROMPTS * (2 + WRITERS) * JUDGES + 2 * DATA_PAIRS
        stages = [
            Stage("alignment", 2 * DPO_PAIRS * 2 * LENGTH, *training),
            Stage(f"drafts, {batch}", SIPO_PROMPTS * WRITERS * DRAFT_TOKENS * 2, rates[best], None),
            Stage("likelihoods", texts * LENGTH, forward_rate, forward_flops),
            Stage("second alignment", 2 * AGAIN_PAIRS * 2 * LENGTH, *training),
        ]
        others, programs = [], [(found["train"], 2), (found["forward"], 2)]
    else:
        scored = (DATA_ROWS + GENERATORS * PROMPTS) * SCORED_LENGTH * REWARD_MODELS
        new_tokens = GENERATORS * PROMPTS * NEW_TOKENS
        stages = [
            Stage("training, two stages", PREFERENCES * 2 * STEPS * ROWS * LENGTH, *training),
            Stage(f"generation, {batch}", new_tokens, rates[best], None),
            Stage("scoring", scored, forward_flops / (2 * REWARD_WEIGHTS), forward_flops),
        ]
        others = [("selection, two stages", 2 * found["select"].median)]
        programs = [(found["train"], 2), (found["forward"], REWARD_MODELS)]
    others.append(("compilation", _compile_seconds([*programs, (decodes[best], 1)])))
    rows = [_row(stage, peak_flops) for stage in stages]
    rows += [[name, "–", "–", "–", f"{seconds / 3600:.3f}"] for name, seconds in others]
    total = sum(stage.tokens / stage.rate for stage in stages) + sum(each for _, each in others)
    rows.append(["**whole task**", "", "", "", f"**{total / 3600:.2f}**"])
    rows.append(["the paper's, on its GPUs", "", "", "", f"{PAPER_HOURS[options.task]}"])
    return ["stage", "tokens", "tokens/s", "model FLOP utilisation", "device hours"], rows


def _compile_seconds(programs: Sequence[tuple[contenders.Measurement, int]]) -> float:
    """What first calls take beyond the others, each program so many times."""
    return sum(max(each.first - each.median, 0.0) * times for each, times in programs)


def _row(stage: Stage, peak_flops: float) -> list[str]:
    share = f"{stage.achieved / peak_flops:.1%}" if stage.achieved else "–"
    hours = stage.tokens / stage.rate / 3600
    return [stage.name, f"{stage.tokens / 1e6:.2f} M", f"{stage.rate:.0f}", share, f"{hours:.3f}"]


if __name__ == "__main__":
    main()
