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
import regex

from paretohqd_jax.commands.arguments import positive_integer
from paretohqd_jax.data.chat import check_prompt_format
from paretohqd_jax.data.conversations import as_prompt
from paretohqd_jax.data.rows import check_writable, drop_duplicates, write_table
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path
from paretohqd_jax.pipeline import source_digest
from paretohqd_jax.sampling.sampler import SamplingConfig

SENTENCE_END = regex.compile(r"\p{Sentence_Terminal}")


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
    parser.add_argument("--batch-size", type=positive_integer, default=32, help="prompts at a time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> None:
    """Samples responses to a file of prompts, one per prompt under each of several instructions.

    The instructions are not kept: they only make the responses differ. Responses cut at the token
    limit are trimmed to their last whole sentence; collapsed ones are left out.
    """
    from paretohqd_jax.evaluation.collapse import collapse_causes
    from paretohqd_jax.models.lora import LoraConfig
    from paretohqd_jax.steps.base_model import BaseModel

    check_writable(options.out)
    check_prompt_format(options.prompt_format)
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
    whole = [cause == "" for cause in collapse_causes(rows["response"].to_pylist())]
    rows = drop_duplicates(rows.filter(pa.array(whole)))
    if rows.num_rows == 0:
        raise InputError(
            f"{options.model}: all {len(whole)} responses are collapsed, so there is nothing to "
            f"write; use another model, or raise max_new_tokens in {options.instructions}"
        )
    write_table(options.out, rows)
    shutil.rmtree(partial)
    print(f"{options.out}: {rows.num_rows} rows for {len(prompts)} prompts")


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
    return [_whole_sentences(text) if truncated else text for text, truncated in pairs]


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


def _whole_sentences(text: str) -> str:
    """The text up to its last full stop, exclamation or question mark of any script, or ""."""
    return text[: max((mark.end() for mark in SENTENCE_END.finditer(text)), default=0)]


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
