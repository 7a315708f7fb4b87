"""The command `paretohqd chat`: the model of one preference answers in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paretohqd_jax.commands.arguments import add_policy, positive_integer
from paretohqd_jax.data.chat import format_dialogue, takes_dialogues
from paretohqd_jax.errors import InputError
from paretohqd_jax.sampling.sampler import SamplingConfig

logger = logging.getLogger(__name__)
Exchanges = Sequence[tuple[str, str]]  # earlier questions and their answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("--prompt", help="answer this and end")
    parser.add_argument("--temperature", type=float, help="default: that of config.evaluate")
    parser.add_argument(
        "--max-new-tokens", type=positive_integer, help="default: those of config.evaluate"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    """Answers questions in the terminal with the model of one preference.

    Without --interpolate a preference that was not trained has the model of the nearest one.
    """
    from paretohqd_jax.steps.serving import read_run_config, served_model
    from paretohqd_jax.steps.task import sampling_options

    workdir = Path(options.workdir)
    config = read_run_config(workdir)
    sampling = SamplingConfig(**sampling_options(config.evaluate))
    for name in ("max_new_tokens", "temperature"):
        if getattr(options, name) is not None:
            sampling = dataclasses.replace(sampling, **{name: getattr(options, name)})
    policy, base, adapter = served_model(
        workdir, options.preference, options.policy, options.interpolate, options.model
    )

    def answer(number: int, question: str, exchanges: Exchanges) -> str:
        return _answer(
            base, adapter, sampling, config.data.format, options.seed, number,
            policy.ask(question), exchanges,
        )  # fmt: skip

    if options.prompt is not None:
        answer(0, options.prompt, [])
    else:
        _converse(answer, takes_dialogues(base.prompt_format, config.data.format))


def _converse(answer: Callable[[int, str, Exchanges], str], remembers: bool) -> None:
    """Asks and answers until /quit or the end of the input; Ctrl-C ends an answer alone."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (lets input() edit lines and recall them)

    print("/quit or Ctrl-D ends.")
    if not remembers:
        print("Prompts of this run have one turn: each question is on its own.")
    exchanges: list[tuple[str, str]] = []
    number = 0
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if question == "/quit":
            return
        if not question:
            continue
        try:
            text = answer(number, question, exchanges)
        except KeyboardInterrupt:
            print()
        except InputError as error:  # of this question: it is too long
            logger.error("%s", error)
        else:
            exchanges += [(question, text)] if remembers else []
        number += 1


def _answer(
    base: Any,
    adapter: dict[str, Any],
    sampling: SamplingConfig,
    data_format: str,
    seed: int,
    number: int,
    question: str,
    exchanges: Exchanges,
) -> str:
    """Prints the answer while it is decoded, and returns it; `number` is that of the question."""
    import jax

    from paretohqd_jax.sampling.streaming import stream_response
    from paretohqd_jax.steps.base_model import step_seed

    key = jax.random.key(step_seed(seed, f"chat {number}"))
    text = ""
    for piece in stream_response(
        base.model, base.params, adapter, base.tokenizer,
        _prompt(base, sampling, data_format, question, exchanges), key, sampling,
        base.eos_token_ids,
    ):  # fmt: skip
        print(piece, end="", flush=True)
        text += piece
    print()
    return text.strip()


def _prompt(
    base: Any, sampling: SamplingConfig, data_format: str, question: str, exchanges: Exchanges
) -> list[int]:
    """Token ids of the question after as many of the latest exchanges as the context holds."""
    from paretohqd_jax.sampling.generation import encode_prompts

    context = base.config.max_position_embeddings
    for first in range(len(exchanges) + 1):
        text = format_dialogue(
            base.tokenizer, question, exchanges[first:], base.prompt_format, data_format
        )
        try:
            return encode_prompts(base.tokenizer, [text], context, sampling)[0]
        except InputError as error:
            too_long = error
    raise too_long
