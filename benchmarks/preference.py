"""Steps of DPO and of what is made of it: together, one after another, and with TRL + PEFT.

    python benchmarks/preference.py --shape=toy                                # a look, minutes
    python benchmarks/preference.py --adapters=1 --rows=4 --length=128 --threads=1  # SmolLM2, CPU
    python benchmarks/preference.py --shape=llama2-7b --rows=4 --length=512 --remat=full \\
        --attention=cudnn --alone

Every contender takes optimisation steps of the same kind on the same model (the same random
weights), pairs, reference log-probabilities and dtype: both responses of each pair forward and
backward, clipping, AdamW on the adapter alone. A round of a stack is one step of all N adapters, a
round of the others one step of one adapter. With --adapters=1 two objectives are weighed besides,
by their losses (DPO-LW) and by their gradients (RACO). The losses of the first step must agree, of
DPO and of the other two.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import contenders
import finetune
import numpy as np
import shapes

BETA = 0.1
WEIGHTS = (0.6, 0.4)  # of two objectives
PACKAGES = (*contenders.PACKAGES, "trl")


def pairs_of(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """tokens and response mask [adapters, rows, 2, length], reference log-probs without the last.

    The second half of the tokens is the response. Of an untrained model the log-probabilities are
    about those of an even guess.
    """
    vocab_size = shapes.SHAPES[options.shape].vocab_size
    shape = (options.adapters, options.rows, 2, options.length)
    random = np.random.default_rng(0)
    tokens = random.integers(1, vocab_size, size=shape, dtype=np.int32)
    response = np.broadcast_to(np.arange(options.length) >= options.length // 2, shape)
    even_guess = -np.log(vocab_size) * response[0, 0, 0].sum()
    reference = random.normal(even_guess, 5, shape[:3]).astype(np.float32)
    return {"tokens": tokens, "response_mask": response, "reference": reference}


def ours(
    options: argparse.Namespace, num_adapters: int = 1, combination: str = "weighted",
    num_objectives: int = 1, **how: float,
) -> Callable[[], float]:  # fmt: skip
    import jax

    from paretohqd_jax.models.llama import Llama
    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.training import step
    from paretohqd_jax.training.preferences import Pairs, preference_objective

    config, lora = shapes.model_of(options, options.remat)
    made = {name: array[:num_adapters] for name, array in pairs_of(options).items()}
    shape = (num_adapters, options.rows)
    labels = np.ones((*shape, num_objectives), np.int8)
    labels[:, ::2, 1:] = -1  # half of the pairs are in conflict
    weights = np.array(WEIGHTS if num_objectives > 1 else [1.0], np.float32)
    batch = Pairs(
        **made, token_mask=np.ones(made["tokens"].shape, bool), labels=labels,
        weights=np.broadcast_to(weights, labels.shape), others=np.zeros(shape, np.float32),
        share=np.ones(shape, np.float32),
    )  # fmt: skip
    objective = preference_objective(
        combination, beta=BETA, loss="sigmoid", label_smoothing=0.0, **how
    )
    params = shapes.jax_params(config)
    optimizer = step.make_optimizer(step.OptimizerConfig(1e-4, num_steps=1000))
    train_step = step.make_train_step(
        Llama(config, lora), optimizer, None, options.microbatches, objective
    )
    keys = jax.random.split(jax.random.key(0), num_adapters)
    adapters = init_adapters(jax.random.key(1), config, lora, num_adapters)
    state = step.init_train_state(adapters, optimizer)

    def one_step() -> float:
        nonlocal state
        state, metrics = train_step(state, params, batch, keys)
        return float(metrics["loss"][0])

    return one_step


def stacked(options: argparse.Namespace) -> Callable[[], float]:
    return ours(options, options.adapters)


def loss_weighting(options: argparse.Namespace) -> Callable[[], float]:
    return ours(options, num_objectives=2)


def raco(options: argparse.Namespace) -> Callable[[], float]:
    return ours(options, combination="raco", num_objectives=2, conflict=0.4)


def trl(options: argparse.Namespace) -> Callable[[], float]:
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config, lora = shapes.model_of(options)
    device = shapes.torch_device(options)
    checkpointing = options.remat == "full"
    settings = DPOConfig(
        tempfile.mkdtemp(), beta=BETA, precompute_ref_log_probs=True, bf16=False,
        use_cpu=device == "cpu", gradient_checkpointing=checkpointing, report_to="none",
    )  # fmt: skip
    trainer = DPOTrainer(
        shapes.torch_model(config, device), args=settings, peft_config=shapes.peft_config(lora),
        processing_class=word_tokenizer(),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "a", "rejected": "a"}]),
    )  # fmt: skip
    model = trainer.model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    inputs = trl_batch(pairs_of(options), device)

    def one_step() -> float:
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return one_step


def trl_batch(made: dict[str, np.ndarray], device: str) -> dict[str, Any]:
    """The pairs of the first adapter as TRL collates them: all chosen, then all rejected ones."""
    import torch

    def in_turn(array: np.ndarray) -> Any:
        return torch.tensor(array[0].swapaxes(0, 1).reshape(-1, array.shape[-1]), device=device)

    tokens = in_turn(made["tokens"]).long()
    chosen, rejected = torch.tensor(made["reference"][0].T, device=device)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "completion_mask": in_turn(made["response_mask"]).long(),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }


def word_tokenizer() -> Any:
    """Any will do: the batch is made of tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<eos>", eos_token="<eos>", unk_token="a"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    finetune.add_options(parser)
    parser.add_argument(
        "--processor_time", action="store_true", help="seconds of the process, not of the clock"
    )
    parser.set_defaults(dropout=0.0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options, PACKAGES)
    config, lora = shapes.model_of(options)
    peer = "TRL + PEFT, one after another"
    makes = {
        f"ours, {options.adapters} adapters stacked": stacked,
        "ours, one adapter after another": ours,
        peer: trl,
    }
    if options.adapters == 1:
        peer = "TRL + PEFT"
        makes = {
            "ours, DPO": ours,
            "ours, DPO-LW of 2 objectives": loss_weighting,
            "ours, RACO of 2 objectives": raco,
            peer: trl,
        }
    results = contenders.measure(makes, options, rounds=options.rounds, alone=options.alone)
    clock, seconds_per_token = "seconds of the processor", None
    if not options.processor_time:
        device, peak_flops = shapes.peak_flops(config.dtype, options)
        clock = f"{device}: {peak_flops / 1e9:.0f} GFLOP/s"
        flops = shapes.training_flops(config, lora, 1, options.length) / options.length
        seconds_per_token = flops / peak_flops
    checkpointing = "on" if options.remat == "full" else "off"
    print(
        f"\n{options.shape} ({config.num_layers} layers, {config.dtype}), rank {lora.rank} on "
        f"{options.targets}, {options.rows} pairs of 2 x {options.length} tokens per adapter and "
        f"step in {options.microbatches} microbatches, attention {options.attention}, remat "
        f"{options.remat} (TRL: gradient checkpointing {checkpointing}); {clock}.\n"
    )
    num_tokens = {
        name: 2 * options.rows * options.length * (options.adapters if make is stacked else 1)
        for name, make in makes.items()
    }
    print(finetune.rates_table(results, num_tokens, seconds_per_token, peer, "of TRL's"))
    weighted, conflicting = (results.get(name) for name in list(makes)[1:3])
    if options.adapters == 1 and not isinstance(weighted, str) and not isinstance(conflicting, str):
        print(f"\nA step of RACO takes {conflicting.median / weighted.median:.2f} of DPO-LW's.")


if __name__ == "__main__":
    main()
