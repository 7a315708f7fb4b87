"""The responses of adapters, alone or mixed, to a list of prompts, as a table; resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paretohqd_jax.data.special_tokens import encode
from paretohqd_jax.distributed import check_preemption, is_main_process, on_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.sharding import num_shards
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.sampling.answerers import Answerer, alone, num_slots
from paretohqd_jax.sampling.beam_search import search_responses
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.schedule import Pending, Response, respond

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_SHARDS = 20.0
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("answerer", pa.int32()),
        ("response", pa.string()),
        ("num_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("periodic_tail", pa.bool_()),
    ]
)


def generate_responses(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[list[int]]],
    key: jax.Array,
    sampling: SamplingConfig,
    *,
    eos_token_ids: tuple[int, ...],
    batch_size: int,
    directory: Path,
    description: str,
    answerers: Sequence[Answerer] = (),
) -> pa.Table:
    """One response of every adapter, or of every answerer, to every one of its prompts.

    Args:
      model, params: with its `lora`, and the base weights.
      adapters: a stack, `[num_adapters, ...]` on every leaf.
      tokenizer: decodes the responses.
      prompts: `[num_answerers][num_prompts]` token ids as `encode_prompts` gives them; prompt i of
        each answerer is prompt_id i.
      key: the response of answerer a to prompt i depends on `key`, a and i, not on what else is
        decoded or when.
      sampling: how tokens are drawn.
      eos_token_ids: any of these ends a response.
      batch_size: rows decoded together, of all answerers; rounded up to fit the devices. A response
        takes one for each adapter that takes part in it, and that in each of its beams.
      directory: keeps finished responses, below a name made from all that decides them but the base
        weights; a killed run goes on from there.
      description: shown with the progress.
      answerers: made of these adapters; each adapter alone if there are none.

    Returns:
      A table ordered by (answerer, prompt_id): prompt_id int64, answerer int32, response string
      (special tokens left out, stripped), num_tokens int32 (end token counted), truncated bool (no
      end token within max_new_tokens), periodic_tail bool (truncated while repeating itself, see
      `has_periodic_tail`).

    Raises:
      InputError: an adapter holds NaN or infinity.
      Preempted: SIGTERM was received; what has been finished is kept.
    """
    check_finite(adapters)
    adapters = jax.tree.map(np.asarray, adapters)  # equal on all processes, so jit may have them
    key_data = np.asarray(jax.random.key_data(key))
    answerers = answerers or alone(len(prompts))
    request = (model, adapters, key_data, sampling, eos_token_ids, prompts)
    shards = directory / fingerprint(*request, answerers)
    rows = on_main_process(lambda: _kept_rows(shards))
    num_kept = len(rows)
    batch_size = -(-batch_size // num_shards("batch")) * num_shards("batch")
    pending = _pending(prompts, batch_size, rows)
    start = written = time.monotonic()
    num_tokens = num_places = 0

    def keep() -> None:
        """Writes the responses that no shard has yet; those of a killed run come before."""
        nonlocal num_kept, written
        if len(rows) > num_kept and is_main_process():
            with atomic_path(shards / f"{num_kept:08d}.parquet") as temporary:
                pq.write_table(pa.Table.from_pylist(rows[num_kept:], SCHEMA), temporary)
        num_kept, written = len(rows), time.monotonic()

    total = sum(map(len, prompts))
    with progress_bar(total, description, "response", initial=len(rows)) as progress:
        try:
            for ended, places in _by_kind(
                model, params, adapters, answerers, pending, key_data, eos_token_ids, sampling,
                batch_size,
            ):  # fmt: skip
                rows += [_to_row(tokenizer, *response, eos_token_ids) for response in ended]
                num_tokens += sum(len(response.tokens) for response in ended)
                num_places += places
                rate = num_tokens / (time.monotonic() - start)
                progress.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
                progress.update(len(ended))
                if time.monotonic() - written > SECONDS_BETWEEN_SHARDS:
                    keep()
                check_preemption()
        finally:
            keep()
    if num_places:
        idle = 1 - (num_tokens - len(pending)) / num_places  # first tokens come with the prompts
        logger.info(
            "%s: %d responses of %d tokens, %.0f tokens/s, slots idle %.1f %% of the time",
            description, len(pending), num_tokens, rate, 100 * idle,
        )  # fmt: skip
    table = pa.Table.from_pylist(rows, SCHEMA)
    return table.sort_by([("answerer", "ascending"), ("prompt_id", "ascending")]).combine_chunks()


def _by_kind(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    answerers: Sequence[Answerer],
    pending: Sequence[Pending],
    key_data: np.ndarray,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    batch_size: int,
) -> Iterator[tuple[list[Response], int]]:
    """What `respond` or `search_responses` yields, one kind of answerers after the other."""
    for kind in dict.fromkeys(answerer.kind for answerer in answerers):
        own = [request for request in pending if answerers[request.answerer].kind == kind]
        slots = num_slots(kind, sampling.num_beams, batch_size, num_shards("batch"))
        how = respond if sampling.num_beams == 1 else search_responses
        yield from how(
            model, params, adapters, answerers, own, key_data, eos_token_ids, sampling, slots
        )


def _kept_rows(shards: Path) -> list[dict[str, Any]]:
    """What an earlier process has finished."""
    tables = [pq.read_table(path) for path in sorted(shards.glob("[0-9]*.parquet"))]
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pylist()


def has_periodic_tail(tokens: Sequence[int], max_period: int = 16, min_repeats: int = 4) -> bool:
    """Whether the last tokens are one sequence of at most `max_period` repeated `min_repeats` times
    (of `collapse_v1`)."""
    return any(
        list(tokens[-period * min_repeats :]) == list(tokens[-period:]) * min_repeats
        for period in range(1, min(max_period, len(tokens) // min_repeats) + 1)
    )


def check_finite(adapters: dict[str, Any]) -> None:
    """Raises InputError naming an adapter that holds NaN or infinity."""
    for leaf in jax.tree.leaves(adapters):
        finite = np.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1)
        if not finite.all():
            raise InputError(
                f"adapter {int(finite.argmin())} holds NaN or infinity: its training diverged;"
                " lower the learning rate and train again"
            )


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    context: int,
    sampling: SamplingConfig,
) -> list[list[int]]:
    """The token ids of each prompt, as the model shall read it, special tokens written out.

    Raises:
      InputError: a prompt is empty or, with max_new_tokens, longer than the model's context.
    """
    prompt_ids = encode(tokenizer, prompts)
    for prompt, ids in enumerate(prompt_ids):
        if not ids:
            raise InputError(f"prompt {prompt} is empty; remove it or give it some text")
        if len(ids) + sampling.max_new_tokens > context:
            raise InputError(
                f"prompt {prompt} has {len(ids)} tokens: with max_new_tokens="
                f"{sampling.max_new_tokens} that is more than the model's context of {context};"
                " shorten it, leave it out, or lower max_new_tokens"
                f" (it begins {prompts[prompt][:40]!r})"
            )
    return prompt_ids


def _pending(
    prompts: Sequence[Sequence[list[int]]], batch_size: int, rows: list[dict[str, Any]]
) -> list[Pending]:
    """What is still to be decoded, in order; decided by all there is, not by what is left."""
    wanted = [
        (answerer, prompt, ids)
        for answerer, its_prompts in enumerate(prompts)
        for prompt, ids in enumerate(its_prompts)
    ]
    # As many requests as fill every slot eight times, of whole rounds of the answerers.
    worth_a_program = 8 * batch_size // len(prompts) * len(prompts)
    lengths = padded_lengths([len(ids) for *_, ids in wanted], worth_a_program)
    done = {(row["answerer"], row["prompt_id"]) for row in rows}
    return sorted(
        Pending(length, answerer, prompt, ids)
        for length, (answerer, prompt, ids) in zip(lengths, wanted, strict=True)
        if (answerer, prompt) not in done
    )


def padded_lengths(lengths: Sequence[int], min_prompts: int) -> list[int]:
    """The length each prompt is padded to: the next of 16, 24, 32, 48, 64, 96, ...

    Few lengths, so few programs to compile; one with less than `min_prompts` prompts is not worth
    a program, and its prompts are padded to the next one that is taken.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    padded = [0] * len(lengths)
    length, waiting = 16, []
    for place, prompt in enumerate(order):
        while length < lengths[prompt]:
            length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
        waiting.append(prompt)
        is_last = place + 1 == len(order)
        if is_last or (lengths[order[place + 1]] > length and len(waiting) >= min_prompts):
            for each in waiting:
                padded[each] = length
            waiting = []
    return padded


def _to_row(
    tokenizer: PreTrainedTokenizerBase,
    answerer: int,
    prompt: int,
    tokens: list[int],
    eos_token_ids: tuple[int, ...],
) -> dict[str, Any]:
    truncated = tokens[-1] not in eos_token_ids
    text = tokenizer.decode(tokens if truncated else tokens[:-1], skip_special_tokens=True)
    return {
        "prompt_id": prompt,
        "answerer": answerer,
        "response": text.strip(),
        "num_tokens": len(tokens),
        "truncated": truncated,
        "periodic_tail": truncated and has_periodic_tail(tokens),
    }


def fingerprint(
    model: Llama,
    adapters: dict[str, Any],
    key_data: np.ndarray,
    sampling: SamplingConfig,
    eos_token_ids: tuple[int, ...],
    prompts: Sequence[Sequence[list[int]]],
    answerers: Sequence[Answerer] = (),
) -> str:
    """A digest of everything but the base weights that decides the responses."""
    config = dataclasses.replace(model.config, remat="none", attention="xla")  # decide none
    request = (config, model.lora, sampling, eos_token_ids, prompts, answerers)
    digest = hashlib.sha256(repr(request).encode())
    for leaf in jax.tree.leaves((key_data, adapters)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:32]
