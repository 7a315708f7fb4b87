"""Several answers of every adapter to each of a few prompts, for policies that are in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from paretohqd_jax.distributed import check_preemption
from paretohqd_jax.models.llama import Llama
from paretohqd_jax.models.sharding import num_shards
from paretohqd_jax.sampling.answerers import alone
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.sampling.schedule import Pending, respond


def sample_groups(
    model: Llama,
    params: dict[str, Any],
    adapters: dict[str, Any],
    prompts: Sequence[list[int]],
    group_size: int,
    key: jax.Array,
    eos_token_ids: tuple[int, ...],
    sampling: SamplingConfig,
    batch_size: int,
) -> list[list[list[int]]]:
    """The tokens of the answers, the end-of-sequence token one of them.

    Args:
      model, params: with its `lora`, and the base weights, each layer's apart.
      adapters: a stack `[num_adapters, ...]`, whole on every device.
      prompts: token ids; all are padded to one length, which is few in number (`padded_lengths`),
        so that few programs are compiled for many calls.
      group_size: answers of each adapter to each prompt.
      key: every answer draws from it by the numbers of its adapter, prompt and place in the group.
      eos_token_ids: any of these ends an answer.
      sampling: how tokens are drawn.
      batch_size: answers decoded together, rounded up to fit the devices.

    Returns:
      `[num_adapters][num_prompts * group_size]` answers, a prompt's beside each other.

    Raises:
      Preempted: SIGTERM was received.
    """
    num_adapters = jax.tree.leaves(adapters)[0].shape[0]
    [length] = padded_lengths([max(map(len, prompts))], 1)
    asked = [ids for ids in prompts for _ in range(group_size)]
    pending = [
        Pending(length, adapter, number, ids)
        for adapter in range(num_adapters)
        for number, ids in enumerate(asked)
    ]
    slots = -(-min(batch_size, len(pending)) // num_shards("batch")) * num_shards("batch")
    answers: list[list[list[int]]] = [[[]] * len(asked) for _ in range(num_adapters)]
    for ended, _ in respond(
        model, params, adapters, alone(num_adapters), pending, np.asarray(jax.random.key_data(key)),
        eos_token_ids, sampling, slots,
    ):  # fmt: skip
        for adapter, number, tokens in ended:
            answers[adapter][number] = tokens
        check_preemption()
    return answers
