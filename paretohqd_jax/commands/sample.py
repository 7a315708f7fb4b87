"""The command `paretohqd sample`: responses to a file of prompts under several instructions."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.data.chat import check_prompt_format
from paretohqd_jax.data.conversations import as_prompt
from paretohqd_jax.data.rows import check_writable, write_table
from paretohqd_jax.data.words import whole_sentences
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path
from paretohqd_jax.pipeline import source_digest
from paretohqd_jax.sampling.sampler import SamplingConfig


class Instruction(NamedTuple):
    """One line of the instructions: a system message, example dialogues, and how to sample."""

    text: str
    examples: list[list[str]]
    sampling: SamplingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="as config.model.source")
    parser.add_argument("--prompts", required=True, help="text file, one prompt per line")
    parser.add_argument("--instructions", required=True, help="jsonl of instructions and sampling")
    parser.add_argument("--prompt-format", default="chat", help="as config.data.prompt_format")
    parser.add_argument("--out", required=True, help="parquet, jsonl or csv to write")
    parser.add_argument(
        "--sentences", default="", metavar="N,...",
        help="the first N sentences of a response are a row as well",
    )  # fmt: skip
    parser.add_argument(
        "--gate", action="append", default=[], metavar="'NAME>=NUMBER'",
        help="leave rows out that fail it, as of config.select.gates; several times",
    )  # fmt: skip
    parser.add_argument(
        "--max-overlap", type=float, default=1.0, metavar="SHARE",
        help="leave rows out that have more of their words in common with another of their prompt "
        "(Jaccard index)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=positive_integer, default=32, help="prompts at a time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    """Samples responses to a file of prompts, one per prompt under each of several instructions.

    The instructions are not kept: they only make the responses differ. Responses cut at the token
    limit are trimmed to their last whole sentence; collapsed ones are left out, and what fails a
    gate or has too many of its words in common with a response that stays.
    """
    from paretohqd_jax.models.lora import LoraConfig
    from paretohqd_jax.steps.base_model import BaseModel
    from paretohqd_jax.steps.cleaning import (
        check_gates,
        with_first_sentences,
        within_gates,
        without_collapsed,
        without_near_duplicates,
    )

    check_writable(options.out)
    check_prompt_format(options.prompt_format)
    counts = _parse_sentences(options.sentences)
    if not 0 <= options.max_overlap <= 1:
        raise InputError(f"--max-overlap {options.max_overlap:g}: give a share from 0 to 1")
    line_numbers, prompts = zip(*_read_lines(options.prompts), strict=True)
    told = _read_lines(options.instructions)
    instructions = [
        _parse_instruction(line, f"{options.instructions}: line {number}") for number, line in told
    ]
    partial = Path(f"{options.out}.partial")
    base = BaseModel(
        options.model, options.dtype, "none", options.prompt_format, LoraConfig(rank=1),
        date=_first_day(partial),
    )  # fmt: skip
    _ = base.chat  # what is wrong with the model is no instruction's fault
    gates = check_gates(options.gate, base)
    for (number, _), instruction in zip(told, instructions, strict=True):
        try:
            base.format([_conversation(prompts[0], instruction)])
        except InputError as error:  # the template refuses a system message, or ignores it
            raise InputError(f"{options.instructions}: line {number}: {error}") from error
    # The names of shards leave the base weights out, so another model must not find them.
    weights = hashlib.sha256(f"{source_digest(options.model)} {options.dtype}".encode()).hexdigest()
    shards = partial / weights[:16]
    with atomic_path(partial / "date") as record:
        record.write_text(base.date)
    try:
        responses = [
            _sample_under(base, prompts, instruction, shards / str(number), number, options)
            for number, instruction in enumerate(instructions)
        ]
    except InputError as error:
        raise InputError(_by_line(str(error), options.prompts, line_numbers)) from error
    rows = pa.table(
        {"prompt": prompts * len(instructions), "response": [r for rs in responses for r in rs]}
    )
    different = without_collapsed(with_first_sentences(rows, counts))
    if different.num_rows == 0:
        raise InputError(
            f"{options.model}: all {rows.num_rows} responses are collapsed, so there is nothing to "
            f"write; use another model, or raise max_new_tokens in {options.instructions}"
        )
    passed, took = different, ""
    if gates.gates:
        passed, took = within_gates(
            different, gates, base, shards / "scores", options.batch_size, options.dtype
        )
        took = f"; of {different.num_rows} rows the gate {took}"
    if passed.num_rows == 0:
        raise InputError(f"{options.out}: no row is left{took}; loosen the gates")
    kept = without_near_duplicates(passed, options.max_overlap)
    if repeated := passed.num_rows - kept.num_rows:
        took += f"; --max-overlap takes {repeated} of the others"
    write_table(options.out, kept)
    shutil.rmtree(partial)
    print(f"{options.out}: {kept.num_rows} rows for {len(prompts)} prompts{took}")


def _parse_sentences(text: str) -> list[int]:
    """The counts of --sentences."""
    counts = text.split(",") if text else []
    if not all(count.strip().isdecimal() and int(count) for count in counts):
        raise InputError(f"--sentences {text!r}: write numbers of sentences, such as 1,2")
    return [int(count) for count in counts]


def _sample_under(
    base: Any,
    prompts: Sequence[str],
    instruction: Instruction,
    scratch: Path,
    number: int,
    options: argparse.Namespace,
) -> list[str]:
    """One response to each prompt under one instruction, kept in `scratch` for resuming."""
    import jax

    from paretohqd_jax.models.lora import init_adapters
    from paretohqd_jax.sampling.generation import encode_prompts, generate_responses
    from paretohqd_jax.steps.base_model import step_seed

    texts = base.format([_conversation(prompt, instruction) for prompt in prompts])
    context = base.config.max_position_embeddings
    rows = generate_responses(
        base.model, base.params_by_layer,
        init_adapters(jax.random.key(0), base.config, base.lora, 1),
        base.tokenizer, [encode_prompts(base.tokenizer, texts, context, instruction.sampling)],
        jax.random.key(step_seed(options.seed, f"sample {number}")), instruction.sampling,
        eos_token_ids=base.eos_token_ids, batch_size=options.batch_size, directory=scratch,
        description=f"instruction {number}",
    )  # fmt: skip
    pairs = zip(rows["response"].to_pylist(), rows["truncated"].to_pylist(), strict=True)
    return [whole_sentences(text) if truncated else text for text, truncated in pairs]


def _conversation(prompt: str, instruction: Instruction) -> str:
    """The prompt after the instruction and its examples."""
    turns = [("system", instruction.text)] if instruction.text else []
    for example, response in instruction.examples:
        turns += [("user", example), ("assistant", response)]
    return as_prompt([{"role": role, "content": t} for role, t in [*turns, ("user", prompt)]])


def _first_day(partial: Path) -> str:
    """The day on which the sampling began, for chat templates that write it."""
    record = partial / "date"
    return record.read_text() if record.exists() else datetime.date.today().isoformat()


def _by_line(message: str, path: str, line_numbers: Sequence[int]) -> str:
    """A message about a prompt, which it counts from 0, as one about a line of the file."""

    def line(prompt: re.Match[str]) -> str:
        return f"{path}: line {line_numbers[int(prompt[1])]}: the prompt"

    return re.sub(r"^prompt (\d+)", line, message)


def _read_lines(path: str) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number in the file, counted from 1."""
    try:
        lines = Path(path).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path}: has no lines")
    return numbered


def _parse_instruction(line: str, place: str) -> Instruction:
    """The instruction in one line of JSON; `place` names the file and the line in messages."""
    try:
        options = json.loads(line)
        if not isinstance(options, dict):
            raise InputError("not an object in braces")
        text, examples = options.pop("instruction", None), options.pop("examples", [])
        if not isinstance(text, str):
            raise InputError(f'"instruction" is {text!r}: it must be a text')
        if not _are_pairs(examples):
            raise InputError('"examples" must be a list of pairs of a prompt and a response')
        unknown = options.keys() - SamplingConfig.__dataclass_fields__.keys()
        if unknown:
            raise InputError(f"unknown option {min(unknown)!r}")
        return Instruction(text, examples, SamplingConfig(**{"max_new_tokens": None} | options))
    except (json.JSONDecodeError, InputError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(
            f'{place}: {reason}; write lines like {{"instruction": "Be brief.", "examples": '
            '[["Why?", "Because."]], "max_new_tokens": 32, "temperature": 0.8}'
        ) from error


def _are_pairs(examples: object) -> bool:
    """Whether these are a list of lists of two texts."""
    return isinstance(examples, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in examples
    )
