"""Scoring with a GPT-2 reward model: ours, and transformers at batch 1 and at larger batches.

    python benchmarks/score.py --shape=toy                                  # a look, seconds
    python benchmarks/score.py --threads=2                                  # GPT-2 small, CPU
    python benchmarks/score.py --shape=gpt2-large --dtype=bfloat16 --rows=4096 \\
        --batch_size=128 --peer_batches=16,64,128 --alone                   # one GPU

All score the same rows of random tokens, whose lengths are log-normal, with the same random
weights. Batch 1 is what the reference pipelines do; at a larger batch transformers gets its rows
sorted by length and padded to the longest of each batch, which its users do themselves. Tokenising
is left out, for it costs all the same. `difference` is the largest of a reward from transformers'
at batch 1, as a share of the rewards' standard deviation.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import contenders
import numpy as np
import shapes

from paretohqd_jax.models.classifiers import gpt2

PACKAGES = ("jax", "flax", "torch", "transformers")
SHAPES = {  # hidden size, layers, heads, vocabulary
    "toy": (64, 2, 4, 512),
    "gpt2": (768, 12, 12, 50257),
    "gpt2-large": (1280, 36, 20, 50257),
}


def config_of(options: argparse.Namespace) -> gpt2.GPT2Config:
    size, layers, heads, vocabulary = SHAPES[options.shape]
    return gpt2.GPT2Config(
        vocabulary, size, 4 * size, layers, heads, 1024, "gelu_new", 1e-5, ("reward",)
    )


def rows_of(options: argparse.Namespace) -> list[list[int]]:
    """Token ids of each row, in random order of length."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(options.median_length), 0.6, options.rows))
    lengths = np.clip(lengths.astype(int), 8, 1024)
    return [rng.integers(1, config_of(options).vocab_size, length).tolist() for length in lengths]


def params_of(options: argparse.Namespace):
    import jax

    from paretohqd_jax.models.classifiers.checkpoint import random_params

    return random_params(jax.random.key(0), gpt2.table(config_of(options)), options.dtype)


def ours(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    from paretohqd_jax.rewards.engine import compute_rewards
    from paretohqd_jax.rewards.loading import Output
    from paretohqd_jax.rewards.reward_model import RewardModel

    apply = Output(gpt2.compute_logits, config_of(options), output=0, sign=1, separator=None)
    model = RewardModel(None, apply, params_of(options), config_of(options).vocab_size)
    rows = rows_of(options)
    return lambda: compute_rewards(model, rows, options.batch_size)


def torch_model(options: argparse.Namespace, device: str):
    """transformers' classifier with the weights of `params_of`."""
    import jax
    import torch
    import transformers

    size, layers, heads, vocabulary = SHAPES[options.shape]
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=size, n_layer=layers, n_head=heads, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).to(getattr(torch, options.dtype))
    state = {}
    params, table = params_of(options), gpt2.table(config_of(options))
    tensors = jax.tree.leaves(table, is_leaf=lambda leaf: hasattr(leaf, "names"))
    for array, tensor in zip(jax.tree.leaves(params), tensors, strict=True):
        parts = np.asarray(array, np.float32)
        parts = parts[None] if tensor.num_layers is None else parts
        for name, part in zip(tensor.names(), parts, strict=True):
            state[name] = torch.tensor(part.T if tensor.transposed else part)
    model.load_state_dict(state, strict=False)
    return model.eval().to(device)


def torch_scores(batch_size: int, options: argparse.Namespace) -> Callable[[], np.ndarray]:
    import torch

    device = shapes.torch_device(options)
    model = torch_model(options, device)
    rows = rows_of(options)
    order = range(len(rows)) if batch_size == 1 else np.argsort([len(row) for row in rows])
    batches = [order[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def one_round() -> np.ndarray:
        rewards = np.empty(len(rows), np.float32)
        with torch.inference_mode():
            for batch in batches:
                texts = [torch.tensor(rows[row]) for row in batch]
                tokens = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(device)
                logits = model(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
                rewards[list(batch)] = logits[:, 0].float().cpu().numpy()
        return rewards

    return one_round


def flops_of(options: argparse.Namespace) -> float:
    """Of the real tokens: matrix products of the layers, and attention over the visible half."""
    config = config_of(options)
    size, total = config.hidden_size, 0.0
    for row in rows_of(options):
        products = 2 * 12 * size**2 * len(row)
        attention = 4 * size * len(row) * (len(row) + 1) / 2
        total += config.num_layers * (products + attention)
    return total


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--median_length", type=int, default=96, help="tokens")
    parser.add_argument("--batch_size", type=int, default=4, help="ours")
    parser.add_argument("--peer_batches", default="4,8", help="of transformers, besides 1")
    parser.add_argument("--threads", type=int, default=0, help="cores to keep to; 0: all")
    parser.add_argument("--rounds", type=int, default=1, help="timed rounds")
    parser.add_argument("--alone", action="store_true", help="one contender at a time, not in turn")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options, PACKAGES)
    makes = {f"ours, batch {options.batch_size}": ours}
    for batch_size in (1, *map(int, options.peer_batches.split(","))):
        makes[f"transformers, batch {batch_size}"] = functools.partial(torch_scores, batch_size)
    found = contenders.measure(makes, options, rounds=options.rounds, alone=options.alone)
    device, peak_flops = shapes.peak_flops(options.dtype, options)
    lengths = [len(row) for row in rows_of(options)]
    print(
        f"\n{options.shape} in {options.dtype}, {options.rows} rows of {min(lengths)} to "
        f"{max(lengths)} tokens, {np.mean(lengths):.0f} on average; {device}: "
        f"{peak_flops / 1e9:.0f} GFLOP/s.\n"
    )
    reference = found["transformers, batch 1"]
    header = ["contender", "rows/s", "[min–max]", "of batch 1", "model FLOP utilisation"]
    header += ["peak memory MB", "compile s", "difference"]
    rows = []
    for name, measured in found.items():
        if isinstance(measured, str):
            rows.append([name, *["–"] * 6, measured])
            continue
        rates = [options.rows / seconds for seconds in measured.seconds]
        compared = isinstance(reference, contenders.Measurement)
        ratio = f"{reference.median / measured.median:.2f}" if compared else "–"
        difference = (
            np.abs(measured.result - reference.result).max() / reference.result.std()
            if compared
            else None
        )
        rows.append(
            [
                name,
                f"{options.rows / measured.median:.2f}",
                f"{min(rates):.2f}–{max(rates):.2f}",
                ratio,
                f"{flops_of(options) / measured.median / peak_flops:.1%}",
                f"{measured.memory / 1e6:.0f}",
                f"{measured.first - measured.median:.1f}",
                f"{difference:.1e}" if compared else "–",
            ]
        )
    print(contenders.table(header, rows))


if __name__ == "__main__":
    main()
