"""The responses of a stack of adapters to a list of prompts, as a table; resumable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paretohqd_jax.errors import InputError
from paretohqd_jax.files import atomic_path
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.progress import progress_bar
from paretohqd_jax.sampling.sampler import SamplingConfig, decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("adapter", pa.int32()),
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
    prompts: Sequence[str],
    key: jax.Array,
    sampling: SamplingConfig,
    *,
    eos_token_ids: tuple[int, ...],
    batch_size: int,
    directory: Path,
    description: str,
) -> pa.Table:
    """One response of every adapter to every prompt.

    Args:
      model, params, adapters: as for `decode`; leaves of `adapters` are [num_adapters, ...].
      tokenizer: encodes prompts as they are, without adding special tokens.
      prompts: text as the model shall read it, special tokens written out; prompt i is prompt_id i.
      key: the response of adapter a to prompt i depends on `key`, a and i, not on the batches.
      sampling: how tokens are drawn.
      eos_token_ids: any of these ends a response.
      batch_size: most prompts per batch; a batch decodes num_adapters rows for each.
      directory: keeps every finished batch under a name made from all that decides its content but
        the base weights; a killed run goes on from there.
      description: shown with the progress.

    Returns:
      A table ordered by (adapter, prompt_id): prompt_id int64, adapter int32, response string
      (special tokens left out, stripped), num_tokens int32 (end token counted), truncated bool (no
      end token within max_new_tokens), periodic_tail bool (truncated while repeating itself, see
      `has_periodic_tail`).

    Raises:
      InputError: a prompt is empty or, with max_new_tokens, longer than the model's context; or an
        adapter holds NaN or infinity.
    """
    _check_finite(adapters)
    prompt_ids = _encode(tokenizer, prompts, model.config.max_position_embeddings, sampling)
    num_adapters = jax.tree.leaves(adapters)[0].shape[0]
    fingerprint = _fingerprint(model, adapters, key, sampling, eos_token_ids)
    tables = []
    with progress_bar(len(prompts) * num_adapters, description, "response") as progress:
        for batch in _batches([len(ids) for ids in prompt_ids], batch_size):
            ids = [prompt_ids[prompt] for prompt in batch]
            shard = directory / _shard_name(fingerprint, batch, ids)
            if not shard.exists():
                start = time.perf_counter()
                tokens, mask = decode(
                    model, params, adapters, *left_padded(ids),
                    _row_keys(key, num_adapters, batch), eos_token_ids, sampling,
                )  # fmt: skip
                tokens, mask = np.asarray(tokens), np.asarray(mask)
                rate = mask.sum() / (time.perf_counter() - start)
                progress.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
                table = _to_table(tokenizer, batch, tokens, mask, eos_token_ids)
                with atomic_path(shard) as temporary:
                    pq.write_table(table, temporary)
            tables.append(pq.read_table(shard))
            progress.update(tables[-1].num_rows)
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    return table.sort_by([("adapter", "ascending"), ("prompt_id", "ascending")]).combine_chunks()


def has_periodic_tail(tokens: Sequence[int], max_period: int = 16, min_repeats: int = 4) -> bool:
    """Whether the last tokens are one sequence of at most `max_period` repeated `min_repeats` times
    (spec 1.7)."""
    return any(
        list(tokens[-period * min_repeats :]) == list(tokens[-period:]) * min_repeats
        for period in range(1, min(max_period, len(tokens) // min_repeats) + 1)
    )


def _check_finite(adapters: dict[str, Any]) -> None:
    for leaf in jax.tree.leaves(adapters):
        finite = np.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1)
        if not finite.all():
            raise InputError(
                f"adapter {int(finite.argmin())} holds NaN or infinity: its training diverged;"
                " lower the learning rate and train again"
            )


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    context: int,
    sampling: SamplingConfig,
) -> list[list[int]]:
    if not prompts:
        return []
    prompt_ids = tokenizer(list(prompts), add_special_tokens=False).input_ids
    for prompt, ids in enumerate(prompt_ids):
        if not ids:
            raise InputError(f"prompt {prompt} is empty; remove it or give it some text")
        if len(ids) + sampling.max_new_tokens > context:
            raise InputError(
                f"prompt {prompt} has {len(ids)} tokens: with max_new_tokens="
                f"{sampling.max_new_tokens} that is more than the model's context of {context};"
                f" shorten it or leave it out (it begins {prompts[prompt][:40]!r})"
            )
    return prompt_ids


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Prompts of similar length together, in batches of one size, each prompt in one of them.

    The size is the smallest that needs no more batches; what is short of it at the end is filled up
    by repeating the last prompt, which then gives the same response again.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    num_batches = -(-len(order) // batch_size)
    size = -(-len(order) // max(num_batches, 1))
    batches = [order[i * size : (i + 1) * size] for i in range(num_batches)]
    return [batch + batch[-1:] * (size - len(batch)) for batch in batches if batch]


def left_padded(prompt_ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """tokens int32 and mask bool [B, P], P the next of 16, 24, 32, 48, 64, 96, ...

    Few lengths, so few programs to compile, and never more than a third of padding by rounding.
    """
    longest = max(len(ids) for ids in prompt_ids)
    length = 16
    while length < longest:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    tokens = np.zeros((len(prompt_ids), length), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(prompt_ids):
        tokens[row, length - len(ids) :] = ids
        mask[row, length - len(ids) :] = True
    return tokens, mask


def _row_keys(key: jax.Array, num_adapters: int, prompts: list[int]) -> jax.Array:
    """Keys [A, B] for decode: fold_in(fold_in(key, adapter), prompt)."""
    fold_in = jax.random.fold_in
    adapter_keys = jax.vmap(fold_in, (None, 0))(key, jnp.arange(num_adapters))
    return jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(adapter_keys, jnp.asarray(prompts))


def _to_table(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[int],
    tokens: np.ndarray,
    mask: np.ndarray,
    eos_token_ids: tuple[int, ...],
) -> pa.Table:
    """The rows of one batch, tokens and mask [A, B, max_new_tokens], each prompt once."""
    rows = []
    for adapter in range(tokens.shape[0]):
        for column, prompt in enumerate(dict.fromkeys(prompts)):
            ids = tokens[adapter, column][mask[adapter, column]].tolist()
            truncated = ids[-1] not in eos_token_ids
            text = tokenizer.decode(ids if truncated else ids[:-1], skip_special_tokens=True)
            rows.append(
                {
                    "prompt_id": prompt,
                    "adapter": adapter,
                    "response": text.strip(),
                    "num_tokens": len(ids),
                    "truncated": truncated,
                    "periodic_tail": truncated and has_periodic_tail(ids),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def _fingerprint(
    model: Llama,
    adapters: dict[str, Any],
    key: jax.Array,
    sampling: SamplingConfig,
    eos_token_ids: tuple[int, ...],
) -> bytes:
    """A digest of everything but prompts and base weights that decides the responses."""
    digest = hashlib.sha256(repr((model.config, model.lora, sampling, eos_token_ids)).encode())
    for leaf in jax.tree.leaves((jax.random.key_data(key), adapters)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.digest()


def _shard_name(fingerprint: bytes, prompts: list[int], prompt_ids: list[list[int]]) -> str:
    digest = hashlib.sha256(fingerprint + repr((prompts, prompt_ids)).encode())
    return f"{digest.hexdigest()[:32]}.parquet"
