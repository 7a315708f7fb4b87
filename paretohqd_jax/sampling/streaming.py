"""One response, shown while it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.lora import side_by_side
from paretohqd_jax.sampling.answerers import Answerer
from paretohqd_jax.sampling.beam_search import beam_search
from paretohqd_jax.sampling.decoder import advance, fill
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.slots import Requests, empty_slots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character are decoded to


def stream_response(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    answerer: Answerer,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    key: jax.Array,
    sampling: SamplingConfig,
    eos_token_ids: tuple[int, ...],
) -> Iterator[str]:
    """Pieces of the response to one prompt; together they are what `generate_responses` decodes.

    That of a beam search comes in one piece.

    Args:
      model, params, sampling, eos_token_ids: as for `decoder.fill`.
      adapters: a stack, `[num_adapters, ...]` on every leaf.
      answerer: made of these adapters.
      tokenizer: decodes the response.
      prompt: token ids as `encode_prompts` gives them.
      key: token t is drawn with fold_in(key, t).
    """
    [length] = padded_lengths([len(prompt)], 1)
    request = Requests(
        rows=np.zeros(1, np.int32),
        tokens=np.pad(np.array([prompt], np.int32), ((0, 0), (0, length - len(prompt)))),
        lengths=np.array([len(prompt)], np.int32),
        adapter_ids=np.array([answerer.adapters], np.int32),
        weights=np.array([answerer.weights], np.float32),
        keys=np.asarray(jax.random.key_data(key))[None],
    )
    stack = side_by_side(adapters, model.config.dtype)
    num_members, mixing = answerer.kind
    if sampling.num_beams > 1:
        tokens, [num_tokens] = beam_search(
            model, params, stack, [answerer], request.tokens, request.lengths, eos_token_ids,
            sampling,
        )  # fmt: skip
        yield tokenizer.decode(tokens[0, :num_tokens], skip_special_tokens=True).lstrip()
        return
    how = (eos_token_ids, sampling, mixing)
    room = length + sampling.max_new_tokens
    slots = empty_slots(model.config, 1, room, sampling.max_new_tokens, num_members)
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
