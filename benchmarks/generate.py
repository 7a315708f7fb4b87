"""Decoding under a stack of adapters: together, one after another, and with transformers.

    python benchmarks/generate.py --shape=toy                                  # a look, minutes
    python benchmarks/generate.py --adapters=3 --rows=8 --threads=1            # SmolLM2, CPU
    python benchmarks/generate.py --shape=llama2-7b --adapters=3 --rows=64 --length=128 --alone
    python benchmarks/generate.py --mixed --adapters=2 --rows=8 --threads=1    # logits mixed

All decode greedily the same number of new tokens from the same prompts with the same random weights
and dtype; nothing ends a response early. A round of `stacked` answers every prompt under every
adapter, a round of the others every prompt once. The figures include the prompts' prefill.
The result column is the share of new tokens equal to transformers' own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import contenders
import numpy as np
import shapes


def prompts_of(options: argparse.Namespace) -> np.ndarray:
    """int32 [rows, length]."""
    vocab_size = shapes.SHAPES[options.shape].vocab_size
    rng = np.random.default_rng(0)
    return rng.integers(vocab_size, size=(options.rows, options.length), dtype=np.int32)


def ours(
    options: argparse.Namespace, num_adapters: int, adapted: bool = True, divergence: str = ""
) -> Callable:
    import jax

    from paretohqd_jax.models.layers import apart
    from paretohqd_jax.models.llama import Llama
    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.sampling.answerers import Answerer
    from paretohqd_jax.sampling.decoder import decode
    from paretohqd_jax.sampling.logit_mixtures import Mixing
    from paretohqd_jax.sampling.sampler import SamplingConfig

    config, lora = shapes.model_of(options)
    tokens = prompts_of(options)
    params = apart(shapes.jax_params(config))
    model = Llama(config, lora if adapted else None)
    adapters = init_adapters(jax.random.key(1), config, lora, num_adapters) if adapted else {}
    answerers = []
    if divergence:  # one adapter more than asked for is the reference
        weights = np.where(np.arange(num_adapters) < options.adapters, 1 / options.adapters, 0)
        members = tuple(range(num_adapters))
        answerers = [Answerer(members, tuple(weights.tolist()), Mixing(divergence))]
    keys = jax.random.split(jax.random.key(0), (len(answerers) or num_adapters, options.rows))
    sampling = SamplingConfig(options.new_tokens, temperature=0.0)

    def one_round() -> np.ndarray:
        lengths, never = np.full(len(tokens), tokens.shape[1]), (-1,)
        found, _ = decode(
            model, params, adapters, tokens, lengths, keys, never, sampling, answerers
        )
        return found[0]

    return one_round


def stacked(options: argparse.Namespace) -> Callable:
    return ours(options, options.adapters)


def one_by_one(options: argparse.Namespace) -> Callable:
    return ours(options, 1)


def mixed(options: argparse.Namespace) -> Callable:
    return ours(options, options.adapters, divergence="reverse_kl")


def mixed_exactly(options: argparse.Namespace) -> Callable:
    return ours(options, options.adapters + 1, divergence="forward_kl")


def no_adapter(options: argparse.Namespace) -> Callable:
    return ours(options, 1, adapted=False)


def torch_generate(options: argparse.Namespace, adapted: bool) -> Callable:
    import torch

    config, lora = shapes.model_of(options)
    device = shapes.torch_device(options)
    model = shapes.torch_model(config, device).eval()
    if adapted:
        model = shapes.with_peft(model, lora).eval()
    tokens = torch.tensor(prompts_of(options), device=device).long()

    def one_round() -> np.ndarray:
        with torch.inference_mode():
            out = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=options.new_tokens,
                min_new_tokens=options.new_tokens,
                eos_token_id=None,
                pad_token_id=0,
            )
        return out[:, tokens.shape[1] :].cpu().numpy()

    return one_round


def transformers(options: argparse.Namespace) -> Callable:
    return torch_generate(options, adapted=False)


def peft(options: argparse.Namespace) -> Callable:
    return torch_generate(options, adapted=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    parser.add_argument("--rows", type=contenders.count, default=8, help="prompts")
    parser.add_argument("--length", type=contenders.count, default=128, help="tokens per prompt")
    parser.add_argument("--new_tokens", type=contenders.count, default=64)
    parser.add_argument(
        "--mixed", action="store_true", help="adapters that answer together beside single ones"
    )
    parser.add_argument(
        "--processor_time", action="store_true", help="on a machine that others use: not the clock"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options)
    if options.mixed:
        compare_mixed(options)
        return
    config, lora = shapes.model_of(options)
    makes = {
        f"ours, {options.adapters} adapters stacked": stacked,
        "ours, one adapter after another": one_by_one,
        "ours, no adapter": no_adapter,
        "transformers generate, no adapter": transformers,
        "transformers + PEFT generate, one adapter after another": peft,
    }
    found = contenders.measure(makes, options, rounds=options.rounds, alone=options.alone)
    device, peak_flops, bandwidth = shapes.machine_peaks(options)
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), rank {lora.rank} on "
        f"{options.targets}, {options.rows} prompts of {options.length} tokens, "
        f"{options.new_tokens} new; {device}: {peak_flops / 1e9:.0f} GFLOP/s, "
        f"{bandwidth / 1e9:.0f} GB/s.\n"
    )
    reference = found["transformers generate, no adapter"]
    header = ["contender", "new tokens/s", "[min–max]", "of transformers'"]
    header += ["model FLOP utilisation", "of the roofline", "peak memory MB", "compile s", "equal"]
    rows = []
    for name, make in makes.items():
        measured = found[name]
        if isinstance(measured, str):
            rows.append([name, *["–"] * 7, measured])
            continue
        stack = options.adapters if make is stacked else 1
        adapted = lora if make in (stacked, one_by_one, peft) else None
        flops, seconds = costs(config, adapted, stack, options, peak_flops, bandwidth)
        tokens = stack * options.rows * options.new_tokens
        rates = [tokens / s for s in measured.seconds]
        rate = tokens / measured.median
        compared = isinstance(reference, contenders.Measurement)
        equal = np.mean(measured.result == reference.result) if compared else None
        rows.append(
            [
                name,
                f"{rate:.1f}",
                f"{min(rates):.1f}–{max(rates):.1f}",
                f"{rate * reference.median / (options.rows * options.new_tokens):.2f}"
                if compared
                else "–",
                f"{flops / measured.median / peak_flops:.1%}",
                f"{seconds / measured.median:.1%}",
                f"{measured.memory / 1e6:.0f}",
                f"{measured.first - measured.median:.1f}",
                f"{equal:.1%}" if compared else "–",
            ]
        )
    print(contenders.table(header, rows))


def compare_mixed(options: argparse.Namespace) -> None:
    """Prints what adapters that answer together cost, in decodes of the same rows by one each."""
    config, lora = shapes.model_of(options)
    makes = {
        "one adapter": (one_by_one, 1),
        f"{options.adapters} adapters stacked": (stacked, options.adapters),
        f"{options.adapters} adapters mixed, reverse KL": (mixed, options.adapters),
        f"{options.adapters} adapters and the reference mixed, forward KL": (
            mixed_exactly, options.adapters + 1,
        ),
    }  # fmt: skip
    found = contenders.measure(
        {name: make for name, (make, _) in makes.items()}, options,
        rounds=options.rounds, alone=options.alone,
    )  # fmt: skip
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), rank {lora.rank} on "
        f"{options.targets}, {options.rows} prompts of {options.length} tokens, "
        f"{options.new_tokens} new; seconds of {'the processor' * options.processor_time}"
        f"{'the clock' * (not options.processor_time)}.\n"
    )
    single = found["one adapter"]
    rows = []
    for name, (_, num_members) in makes.items():
        each = found[name]
        if isinstance(each, str) or isinstance(single, str):
            rows.append([name, *["–"] * 4, str(each)])
            continue
        rows.append(
            [
                name,
                f"{each.median:.2f}",
                f"{min(each.seconds):.2f}–{max(each.seconds):.2f}",
                str(num_members),
                f"{each.median / (num_members * single.median):.2f}",
                f"{each.memory / 1e6:.0f}",
            ]
        )
    header = ["contender", "s", "[min–max]", "members", "of as many single decodes", "peak MB"]
    print(contenders.table(header, rows))


def costs(config, lora, adapters, options, peak_flops, bandwidth) -> tuple[float, float]:
    """FLOPs of a round, and its least seconds: both phases bound by arithmetic or by memory."""
    both = phases(config, lora, adapters, options)
    seconds = sum(max(flops / peak_flops, moved / bandwidth) for flops, moved in both)
    return sum(flops for flops, _ in both), seconds


def phases(config, lora, adapters, options) -> tuple[list[float], list[float]]:
    """FLOPs and bytes of reading the prompts (which arithmetic binds), and of all steps."""
    prompts = shapes.forward_flops(config, lora, adapters * options.rows, options.length)
    # Of the prompt only the last position needs logits.
    head = 2 * config.vocab_size * config.hidden_size
    prompts -= head * adapters * options.rows * (options.length - 1)
    contexts = range(options.length, options.length + options.new_tokens - 1)
    steps = [shapes.decode_costs(config, lora, adapters, options.rows, each) for each in contexts]
    return [prompts, 0.0], [sum(costs) for costs in zip(*steps, strict=True)]


if __name__ == "__main__":
    main()
