"""Fine-tuning a stack of adapters: together, one after another, and with transformers + PEFT.

    python benchmarks/finetune.py --shape=toy                                  # a look, minutes
    python benchmarks/finetune.py --rows=2 --length=128 --threads=1            # SmolLM2, CPU
    python benchmarks/finetune.py --shape=llama2-7b --rows=8 --length=512 --remat=full \\
        --attention=cudnn --alone

Every contender takes optimisation steps of the same kind on the same model (the same random
weights), rows and dtype: forward, backward, clipping, AdamW on the adapter alone. A round of
`stacked` is one step of all N adapters, a round of the others one step of one adapter, so that
N runs one after another take N times as long. The losses of the first step must agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import contenders
import numpy as np
import shapes


def rows_of(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """tokens int32 and response mask bool [adapters, rows, length]: the second half is trained."""
    vocab_size = shapes.SHAPES[options.shape].vocab_size
    shape = (options.adapters, options.rows, options.length)
    tokens = np.random.default_rng(0).integers(vocab_size, size=shape, dtype=np.int32)
    return tokens, np.broadcast_to(np.arange(options.length) >= options.length // 2, shape)


def ours(options: argparse.Namespace, num_adapters: int) -> Callable[[], float]:
    import jax

    from paretohqd_jax.data.batches import Examples
    from paretohqd_jax.models.llama import Llama
    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.steps.training import on_tiles
    from paretohqd_jax.training import step

    config, lora = shapes.model_of(options, options.remat)
    tokens, response = (array[:num_adapters] for array in rows_of(options))
    batch = on_tiles(Examples(tokens, np.ones(tokens.shape, bool), response))
    params = shapes.jax_params(config)
    optimizer = step.make_optimizer(step.OptimizerConfig(1e-4, num_steps=1000))
    train_step = step.make_train_step(
        Llama(config, lora), optimizer, num_microbatches=options.microbatches
    )
    keys = jax.random.split(jax.random.key(0), num_adapters)
    state = step.init_train_state(
        init_adapters(jax.random.key(1), config, lora, num_adapters), optimizer
    )

    def one_step() -> float:
        nonlocal state
        state, metrics = train_step(state, params, batch, keys)
        return float(metrics["loss"][0])

    return one_step


def stacked(options: argparse.Namespace) -> Callable[[], float]:
    return ours(options, options.adapters)


def one_by_one(options: argparse.Namespace) -> Callable[[], float]:
    return ours(options, 1)


def peft(options: argparse.Namespace) -> Callable[[], float]:
    import torch

    config, lora = shapes.model_of(options)
    device = shapes.torch_device(options)
    model = shapes.torch_model(config, device)
    model = shapes.with_peft(model, lora)
    model.config.use_cache = False
    if options.remat == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    tokens, response = (torch.tensor(array[0], device=device) for array in rows_of(options))
    tokens = tokens.long()
    labels = torch.where(response, tokens, -100)
    # PEFT keeps adapters in float32; as its users do, their products are in the model's dtype.
    mixed = torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")

    def one_step() -> float:
        with mixed:
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return one_step


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=contenders.count, default=2, help="of each adapter and step")
    parser.add_argument("--length", type=contenders.count, default=128, help="tokens per row")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--microbatches", type=contenders.count, default=1, help="of ours alone")
    parser.add_argument("--attention", choices=("xla", "cudnn", "splash"), default="xla")
    parser.add_argument("--dropout", type=float, default=0.05, help="of the adapter's input")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options)
    config, lora = shapes.model_of(options)
    makes = {
        f"ours, {options.adapters} adapters stacked": stacked,
        "ours, one adapter after another": one_by_one,
        "transformers + PEFT, one after another": peft,
    }
    if options.adapters == 1:
        makes = {"ours": stacked, "transformers + PEFT": peft}
    reference_name = list(makes)[-1]
    results = contenders.measure(makes, options, rounds=options.rounds, alone=options.alone)
    device, peak_flops, _ = shapes.machine_peaks(options)
    checkpointing = "on" if options.remat == "full" else "off"
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), rank {lora.rank} on "
        f"{options.targets}, dropout {lora.dropout}, {options.rows} x {options.length} tokens per "
        f"adapter and step in {options.microbatches} microbatches, attention {options.attention}, "
        f"remat {options.remat} (PEFT: gradient checkpointing {checkpointing}); {device}: "
        f"{peak_flops / 1e9:.0f} GFLOP/s.\n"
    )
    flops = shapes.training_flops(config, lora, 1, options.length) / options.length
    num_tokens = {
        name: options.rows * options.length * (options.adapters if make is stacked else 1)
        for name, make in makes.items()
    }
    print(rates_table(results, num_tokens, flops / peak_flops, reference_name, "of PEFT's"))


def rates_table(
    results: Mapping[str, contenders.Measurement | str],
    num_tokens: Mapping[str, int],
    seconds_per_token: float | None,
    reference_name: str,
    of_reference: str,
) -> str:
    """A row for each contender.

    Args:
      results: by contender.
      num_tokens: that each works on in a round.
      seconds_per_token: of the work the task needs, at the device's best, where that is known.
      reference_name: the contender that others are held against.
      of_reference: the heading of that column.
    """
    header = ["contender", "tokens/s", "[min–max]", of_reference, "model FLOP utilisation"]
    header += ["peak memory MB", "compile s", "first loss"]
    rates = {
        name: [num_tokens[name] / seconds for seconds in found.seconds]
        for name, found in results.items()
        if isinstance(found, contenders.Measurement)
    }
    reference, rows = rates.get(reference_name), []
    for name, found in results.items():
        if isinstance(found, str):
            rows.append([name, "–", "–", "–", "–", "–", "–", found])
            continue
        rate = float(np.median(rates[name]))
        rows.append(
            [
                name,
                f"{rate:.1f}",
                f"{min(rates[name]):.1f}–{max(rates[name]):.1f}",
                f"{rate / np.median(reference):.2f}" if reference else "–",
                f"{rate * seconds_per_token:.1%}" if seconds_per_token else "–",
                f"{found.memory / 1e6:.0f}",
                f"{found.first - found.median:.1f}",
                f"{found.result:.4f}",
            ]
        )
    return contenders.table(header, rows)


if __name__ == "__main__":
    main()
