"""Generation by a serving engine outside: requests and adapters out, its answers back in.

The boundary is files, since engines and JAX pin other versions of the same libraries. Requests and
answers have the format of OpenAI's batch interface, with prompts as token ids: what the engine
reads is what our own sampler would read. `vllm run-batch` (as of 0.27) serves neither plain
completions nor adapters, so `answer_with_vllm.py` goes along, for vLLM's offline interface.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.distributed import is_main_process, on_main_process
from paretohqd_jax.errors import InputError, Paused
from paretohqd_jax.files import absolute_source, atomic_path
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.sampling import answer_with_vllm
from paretohqd_jax.sampling.engine_command import check_program, run_engine_command
from paretohqd_jax.sampling.generation import (
    SCHEMA,
    check_finite,
    fingerprint,
    has_periodic_tail,
)
from paretohqd_jax.sampling.sampler import SamplingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank may be
REMEDY = "delete it and have the engine answer again"


def check_engine(source: str, rank: int, command: str) -> None:
    """Raises InputError for what a serving engine does not load, or a command that is not there."""
    if command:
        check_program(command)
    if source.lower().endswith(".gguf") or source.startswith(("package:", "random:")):
        raise InputError(
            f"config.generate.engine='external' needs a model the engine can load, and "
            f"config.model.source={source!r} is none; use a Hugging Face directory or hub name, or "
            "config.generate.engine='jax'"
        )
    if rank > RANKS[-1]:
        raise InputError(
            f"config.lora.rank={rank}: config.generate.engine='external' takes up to {RANKS[-1]}"
        )


def external_responses(
    model: Llama,
    source: str,
    adapters: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[list[int]]],
    key: jax.Array,
    sampling: SamplingConfig,
    *,
    eos_token_ids: tuple[int, ...],
    directory: Path,
    description: str,
    command: str = "",
) -> pa.Table:
    """The table of `generate_responses`, from the answers of an engine, once they are there.

    Arguments are those of `generate_responses`, and `source`, the base model's name or path, and
    `command`, which gets the answers (see `engine_command`). Each request carries a seed made from
    `key`, the adapter and the prompt.

    Raises:
      Paused: the answers are not there and no command is given; the message tells how to get them.
      InputError: as `generate_responses`, or the answers are not those to the requests.
    """
    check_finite(adapters)
    if sampling.num_beams > 1:
        raise InputError(
            f"num_beams is {sampling.num_beams}: requests to an engine are for samples; set it to 1"
        )
    key_data = np.asarray(jax.random.key_data(key))
    folder = directory.resolve() / fingerprint(
        model, adapters, key_data, sampling, eos_token_ids, prompts
    )
    requests = _requests(prompts, key_data, sampling, eos_token_ids)
    answers = folder / "answers.jsonl"
    if not on_main_process(answers.exists):  # file systems may show it to others later
        # An engine may be reading what an earlier call left.
        if is_main_process() and not (folder / "requests.jsonl").exists():
            _export(folder, requests, model, source, adapters)
        longest = max(len(ids) for each in prompts for ids in each) + sampling.max_new_tokens
        script = _script(folder, model, source, longest)
        if not command:
            raise Paused(_what_to_do(folder, description, len(requests), script))
        logger.info("%s: %d requests for the engine", description, len(requests))
        on_main_process(lambda: run_engine_command(command, folder, script))
    bodies = _read_answers(answers, requests)
    rows = [
        _to_row(tokenizer, *map(int, custom_id.split("-")), bodies[custom_id])
        for custom_id in requests
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _requests(
    prompts: Sequence[Sequence[list[int]]],
    key_data: np.ndarray,
    sampling: SamplingConfig,
    eos_token_ids: tuple[int, ...],
) -> dict[str, dict[str, Any]]:
    """The body of each request by its id, "ADAPTER-PROMPT", each adapter's together."""
    size = (len(prompts), len(prompts[0]))
    seeds = np.random.default_rng(key_data).integers(2**31, size=size)
    return {
        f"{adapter}-{prompt}": {
            "model": f"adapter{adapter}",
            "prompt": ids,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "seed": int(seeds[adapter, prompt]),
            "stop_token_ids": list(eos_token_ids),
        }
        for adapter, its_prompts in enumerate(prompts)
        for prompt, ids in enumerate(its_prompts)
    }


def _export(
    folder: Path,
    requests: dict[str, dict[str, Any]],
    model: Llama,
    source: str,
    adapters: dict[str, Any],
) -> None:
    for number in range(jax.tree.leaves(adapters)[0].shape[0]):
        adapter = jax.tree.map(lambda leaf, number=number: leaf[number], adapters)
        path = folder / "adapters" / f"adapter{number}"
        export_peft(path, adapter, model.lora, model.config, source)
    shutil.copy(answer_with_vllm.__file__, folder)
    with atomic_path(folder / "requests.jsonl") as temporary, open(temporary, "w") as file:
        for custom_id, body in requests.items():
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/completions"}
            file.write(json.dumps(line | {"body": body}) + "\n")


def _script(folder: Path, model: Llama, source: str, longest: int) -> list[str]:
    """The script beside the requests, and its arguments."""
    return [
        str(folder / "answer_with_vllm.py"),
        "--model", absolute_source(source),
        "--dtype", model.config.dtype,
        "--max-lora-rank", str(next(rank for rank in RANKS if rank >= model.lora.rank)),
        "--max-model-len", str(longest),
    ]  # fmt: skip


def _what_to_do(folder: Path, description: str, num_requests: int, script: list[str]) -> str:
    return (
        f"{description}: {num_requests} requests wait for the engine. In an environment with vLLM "
        f"run\n\n  python {shlex.join(script)}\n\nand then the same paretohqd command again; with "
        "--config.generate.engine_command='PYTHON {script}' it does both itself. Any other engine "
        f"may answer {folder / 'requests.jsonl'} with adapters/, in answers.jsonl beside it."
    )


def _read_answers(path: Path, requests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The body of each answer by the id of its request; each line is checked."""
    bodies: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            custom_id, body = _parse(line, f"{path}: line {number}", requests)
            if custom_id in bodies:
                raise InputError(f"{path}: line {number} answers {custom_id} again; {REMEDY}")
            bodies[custom_id] = body
    missing = [custom_id for custom_id in requests if custom_id not in bodies]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(requests)} requests have no answer, the first is "
            f"{missing[0]}; {REMEDY}"
        )
    return bodies


def _parse(
    line: bytes, place: str, requests: dict[str, dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """The id and the checked body of one answer; `place` names its line in messages."""
    try:
        answer = json.loads(line)
        custom_id, error, response = (answer.get(n) for n in ("custom_id", "error", "response"))
    except (ValueError, AttributeError) as reason:
        raise InputError(f"{place} is cut off or no JSON object; {REMEDY}") from reason
    if not isinstance(custom_id, str) or custom_id not in requests:
        raise InputError(f"{place}: no request has the custom_id {custom_id!r}; {REMEDY}")
    place = f"{place} ({custom_id})"
    response = response if isinstance(response, dict) else {}
    if error or response.get("status_code", 200) != 200:
        reason = error or f"status {response['status_code']}"
        raise InputError(f"{place}: the engine reports {reason}; mend that, then {REMEDY}")
    request = requests[custom_id]
    try:
        body = response["body"]
        [choice], num_tokens = body["choices"], body["usage"]["completion_tokens"]
        text, finish_reason, adapter = choice["text"], choice["finish_reason"], body["model"]
    except (KeyError, TypeError, ValueError) as reason:
        raise InputError(
            f"{place}: needs response.body with model, one of choices (text, finish_reason) and "
            f"usage.completion_tokens; {REMEDY}"
        ) from reason
    for holds, what in (
        (adapter == request["model"], f"model {adapter!r} answered, not {request['model']!r}"),
        (isinstance(text, str), f"text is {text!r}"),
        (finish_reason in ("stop", "length"), f"finish_reason is {finish_reason!r}"),
        (
            isinstance(num_tokens, int) and 1 <= num_tokens <= request["max_tokens"],
            f"completion_tokens is {num_tokens!r}, not 1 to {request['max_tokens']}",
        ),
    ):
        if not holds:
            raise InputError(f"{place}: {what}; {REMEDY}")
    return custom_id, body


def _to_row(
    tokenizer: PreTrainedTokenizerBase, adapter: int, prompt: int, body: dict[str, Any]
) -> dict[str, Any]:
    [choice] = body["choices"]
    truncated = choice["finish_reason"] == "length"
    tokens = tokenizer(choice["text"], add_special_tokens=False).input_ids
    return {
        "prompt_id": prompt,
        "answerer": adapter,
        "response": choice["text"].strip(),
        "num_tokens": body["usage"]["completion_tokens"],
        "truncated": truncated,
        "periodic_tail": truncated and has_periodic_tail(tokens),
    }
