"""Whether what a run is about to do fits its devices, and which option to change if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from paretohqd_jax.data.batches import rounded_up
from paretohqd_jax.sampling.answerers import Answerer, num_slots
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.schedule import num_seats
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.memory import (
    Memory,
    check_memory,
    generation_memory,
    training_memory,
)

FEWER_ADAPTERS = "lower config.lora.rank, or raise config.mesh.data"
LESS_GATHERED = "raise config.mesh.tensor in place of config.mesh.fsdp"


def check_training_memory(
    base: BaseModel,
    num_adapters: int,
    batch_size: int,
    length: int,
    num_microbatches: int,
    num_responses: int = 1,
    num_gradients: int = 1,
) -> Memory:
    """Shows what training needs on each device, and returns it; an InputError if it is too much.

    `length` is that of the rows in tokens, padding included; `num_responses` of that length are in
    a row, and `num_gradients` are computed of each adapter, of losses that are combined.
    """
    memory = training_memory(
        base.model, base.mesh, num_adapters=num_adapters, batch_size=batch_size * num_responses,
        length=length, num_microbatches=num_microbatches, num_gradients=num_gradients,
    )  # fmt: skip
    fewer_rows = "lower config.train.batch_size or config.data.max_tokens"
    most_parts = batch_size // base.mesh.shape["fsdp"]  # each with a row for every device
    if num_microbatches < most_parts:
        fewer_rows = f"raise config.train.num_microbatches, to {most_parts} at most"
    remedies = {
        "base weights": _fewer_weights(base),
        "gathered embedding": LESS_GATHERED,
        "copy of the gathered embedding": LESS_GATHERED,
        "adapters": FEWER_ADAPTERS,
        "optimizer": FEWER_ADAPTERS,
        "gradients": FEWER_ADAPTERS,
        "adapters by layer": FEWER_ADAPTERS,
        "activations": fewer_rows if base.remat == "full" else "set config.model.remat='full'",
        "logits of one chunk": fewer_rows,
        "one layer's backward pass": fewer_rows,
    }
    check_memory(memory, f"training {num_adapters} adapters", remedies)
    return memory


def check_generation_memory(
    base: BaseModel,
    prompts: Sequence[Sequence[list[int]]],
    answerers: Sequence[Answerer],
    sampling: SamplingConfig,
    batch_size: int,
    name: str,
    group: str,
) -> None:
    """Shows what decoding needs on each device; raises InputError if that is too much.

    `prompts` are token ids, `[num_answerers][num_prompts]`; `name` is the step's, whose options are
    those of `config.GROUP`.
    """
    num_rows, at_hand = decoding_sizes(base, answerers, len(prompts[0]), sampling, batch_size)
    [prompt_length] = padded_lengths([max(len(ids) for each in prompts for ids in each)], 1)
    memory = generation_memory(
        base.model, base.mesh, num_seats=at_hand, batch_size=num_rows,
        prompt_length=prompt_length, max_new_tokens=sampling.max_new_tokens,
    )  # fmt: skip
    remedies = {
        "base weights": _fewer_weights(base),
        "gathered embedding": LESS_GATHERED,
        "adapters": "lower config.lora.rank or the number of preferences",
    }
    fewer_rows = f"lower config.{group}.batch_size"
    taken_by_rows = ("cache", "logits", "shorter cache")
    remedies |= dict.fromkeys(taken_by_rows, fewer_rows)
    check_memory(memory, f"step {name} with its responses", remedies)


def check_reinforcement_memory(
    base: BaseModel,
    num_adapters: int,
    num_answers: int,
    prompt_length: int,
    sampling: SamplingConfig,
    decoded_together: int,
    batch_size: int,
    num_microbatches: int,
) -> None:
    """Shows what training on own answers needs; raises InputError if that is too much.

    What is trained stays on the devices while it answers. `num_answers` are those of each adapter
    in an update, `prompt_length` is the longest prompt's, and the other arguments are those of
    `check_training_memory` and `check_generation_memory`.
    """
    [longest] = padded_lengths([prompt_length], 1)
    length = rounded_up(longest + sampling.max_new_tokens)
    trained = check_training_memory(base, num_adapters, batch_size, length, num_microbatches).held
    num_rows = min(decoded_together, num_adapters * num_answers)
    decoding = generation_memory(
        base.model, base.mesh, num_seats=num_seats(num_adapters, num_answers, num_rows),
        batch_size=num_rows, prompt_length=longest, max_new_tokens=sampling.max_new_tokens,
    )  # fmt: skip
    kept = {"trained adapters": trained["adapters"], "optimizer": trained["optimizer"]}
    remedies = dict.fromkeys((*decoding.in_turns, "cache"), "lower config.generate.batch_size")
    remedies |= dict.fromkeys(("adapters", *kept), FEWER_ADAPTERS)
    remedies |= {"base weights": _fewer_weights(base), "gathered embedding": LESS_GATHERED}
    check_memory(
        dataclasses.replace(decoding, held=decoding.held | kept),
        f"the answers of {num_adapters} adapters in training", remedies,
    )  # fmt: skip


def decoding_sizes(
    base: BaseModel,
    answerers: Sequence[Answerer],
    num_prompts: int,
    sampling: SamplingConfig,
    batch_size: int,
) -> tuple[int, int]:
    """The most rows that are decoded together, and the most adapters side by side.

    `num_prompts` are those of each answerer.
    """
    multiple = base.mesh.shape["data"] * base.mesh.shape["fsdp"]
    num_beams, sizes = sampling.num_beams, []
    for kind in {answerer.kind for answerer in answerers}:
        adapters = {each for a in answerers if a.kind == kind for each in a.adapters}
        slots = num_slots(kind, num_beams, batch_size, multiple)
        seats = num_seats(len(adapters), num_prompts, slots, kind.num_members)
        rows = slots * kind.num_members * num_beams
        if num_beams > 1:  # they are copied into another order, and all adapters are at hand
            rows, seats = 2 * rows, len(adapters)
        sizes.append((rows, seats))
    rows, seats = zip(*sizes, strict=True)
    return max(rows), max(seats)


def _fewer_weights(base: BaseModel) -> str:
    cut = "raise config.mesh.fsdp or config.mesh.tensor"
    return cut if base.dtype == "bfloat16" else f"set config.model.dtype='bfloat16', or {cut}"
