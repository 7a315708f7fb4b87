"""One response, shown while it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.sampling.decoder import Requests, advance, empty_slots, fill
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.sampler import SamplingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character are decoded to


def stream_response(
    model: Llama,
    params: dict[str, Any],
    adapter: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    key: jax.Array,
    sampling: SamplingConfig,
    eos_token_ids: tuple[int, ...],
) -> Iterator[str]:
    """Pieces of the response to one prompt; together they are what `generate_responses` decodes.

    Args:
      model, params, sampling, eos_token_ids: as for `decoder.fill`.
      adapter: one adapter, no leading axis.
      tokenizer: decodes the response.
      prompt: token ids as `encode_prompts` gives them.
      key: token t is drawn with fold_in(key, t).
    """
    [length] = padded_lengths([len(prompt)], 1)
    request = Requests(
        rows=np.zeros(1, np.int32),
        tokens=np.pad(np.array([prompt], np.int32), ((0, 0), (0, length - len(prompt)))),
        lengths=np.array([len(prompt)], np.int32),
        adapter_ids=np.zeros(1, np.int32),
        keys=np.asarray(jax.random.key_data(key))[None],
    )
    stack = side_by_side(jax.tree.map(lambda leaf: leaf[None], adapter), model.config.dtype)
    how = (eos_token_ids, sampling)
    room = length + sampling.max_new_tokens
    slots = empty_slots(model.config, 1, room, sampling.max_new_tokens)
    slots = fill(model, params, stack, slots, request, *how)
    told = ""
    while True:
        tokens, [num_tokens], [live] = jax.device_get(
            (slots.tokens[0], slots.num_tokens, slots.live)
        )
        drawn = tokens[:num_tokens].tolist()
        ended = drawn[-1] in eos_token_ids
        text = tokenizer.decode(drawn[:-1] if ended else drawn, skip_special_tokens=True).lstrip()
        if not live or not text.endswith(INCOMPLETE):
            yield text[len(told) :]
            told = text
        if not live:
            return
        slots, _ = advance(model, params, stack, slots, *how, max_steps=1)
