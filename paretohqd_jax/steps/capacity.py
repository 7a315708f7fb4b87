"""Whether what a run is about to do fits its devices, and which option to change if not."""

from __future__ import annotations

from collections.abc import Sequence

from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.schedule import num_seats
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.memory import check_memory, generation_memory, training_memory

FEWER_ADAPTERS = "lower config.lora.rank, or raise config.mesh.data"
LESS_GATHERED = "raise config.mesh.tensor in place of config.mesh.fsdp"


def check_training_memory(
    base: BaseModel, num_adapters: int, batch_size: int, length: int, num_microbatches: int
) -> None:
    """Shows what training needs on each device; raises InputError if that is too much.

    `length` is that of the rows in tokens, padding included.
    """
    memory = training_memory(
        base.model, base.mesh, num_adapters=num_adapters, batch_size=batch_size, length=length,
        num_microbatches=num_microbatches,
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


def check_generation_memory(
    base: BaseModel,
    prompts: Sequence[Sequence[list[int]]],
    max_new_tokens: int,
    batch_size: int,
    name: str,
    group: str,
) -> None:
    """Shows what decoding needs on each device; raises InputError if that is too much.

    `prompts` are token ids, `[num_adapters][num_prompts]`; `name` is the step's, whose options are
    those of `config.GROUP`.
    """
    [prompt_length] = padded_lengths([max(len(ids) for each in prompts for ids in each)], 1)
    memory = generation_memory(
        base.model, base.mesh, num_seats=num_seats(len(prompts), len(prompts[0]), batch_size),
        batch_size=batch_size, prompt_length=prompt_length, max_new_tokens=max_new_tokens,
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


def _fewer_weights(base: BaseModel) -> str:
    cut = "raise config.mesh.fsdp or config.mesh.tensor"
    return cut if base.dtype == "bfloat16" else f"set config.model.dtype='bfloat16', or {cut}"
