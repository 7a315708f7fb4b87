"""The command `paretohqd chat`: the model of one preference answers in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paretohqd_jax.commands.arguments import add_policy, positive_integer
from paretohqd_jax.data.conversations import as_conversation
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

    Without --interpolate a preference that was not trained has the model of the nearest one, unless
    the policies mix several adapters, or ask one model for scores in its prompt: these serve any
    preference.
    """
    from paretohqd_jax.steps.serving import read_run_config, served_model
    from paretohqd_jax.steps.task import sampling_options

    workdir = Path(options.workdir)
    config = read_run_config(workdir)
    sampling = SamplingConfig(**sampling_options(config.evaluate))
    for name in ("max_new_tokens", "temperature"):
        if getattr(options, name) is not None:
            sampling = dataclasses.replace(sampling, **{name: getattr(options, name)})
    policy, base, *answering = served_model(
        workdir, options.preference, options.policy, options.interpolate, options.model
    )
    remembers = base.chat.holds_turns  # read before the weights: a template may not do

    def answer(number: int, question: str, exchanges: Exchanges) -> str:
        return _answer(
            base, answering, sampling, options.seed, number, policy.ask(question), exchanges
        )

    _never_fail_on_bytes()
    if options.prompt is not None:
        answer(0, _checked(options.prompt), [])
    else:
        _converse(answer, remembers)


def _never_fail_on_bytes() -> None:
    """Lets the terminal show and send what its encoding has no characters for."""
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stdin, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _checked(question: str) -> str:
    """The question, or an InputError where bytes of it could not be read."""
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the question is not text in {sys.stdin.encoding or 'UTF-8'} (at character "
            f"{error.start}); ask it again, or set the terminal to UTF-8"
        ) from error
    return question


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
            text = answer(number, _checked(question), exchanges)
        except KeyboardInterrupt:
            print()
        except InputError as error:  # of this question: it is too long, or no text
            logger.error("%s", error)
        else:
            exchanges += [(question, text)] if remembers else []
        number += 1


def _answer(
    base: Any,
    answering: Sequence[Any],
    sampling: SamplingConfig,
    seed: int,
    number: int,
    question: str,
    exchanges: Exchanges,
) -> str:
    """Prints the answer while it is decoded, and returns it.

    `answering` are adapters and which of them answer how; `number` is that of the question.
    """
    import jax

    from paretohqd_jax.sampling.streaming import stream_response
    from paretohqd_jax.steps.base_model import step_seed

    key = jax.random.key(step_seed(seed, f"chat {number}"))
    text = ""
    for piece in stream_response(
        base.model, base.params_by_layer, *answering, base.tokenizer,
        _prompt(base, sampling, question, exchanges), key, sampling, base.eos_token_ids,
    ):  # fmt: skip
        print(piece, end="", flush=True)
        text += piece
    print()
    return text.strip()


def _prompt(base: Any, sampling: SamplingConfig, question: str, exchanges: Exchanges) -> list[int]:
    """Token ids of the question after as many of the latest exchanges as the context holds.

    Where dialogues are read, the first question is a turn of one as well.
    """
    from paretohqd_jax.sampling.generation import encode_prompts

    context = base.config.max_position_embeddings
    for first in range(len(exchanges) + 1):
        turns = [
            {"role": role, "content": text}
            for exchange in exchanges[first:]
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        ]
        messages = [*turns, {"role": "user", "content": question}]
        prompt = as_conversation(messages) if base.chat.holds_turns else question
        try:
            return encode_prompts(base.tokenizer, base.format([prompt]), context, sampling)[0]
        except InputError as error:
            too_long = error
    raise too_long
