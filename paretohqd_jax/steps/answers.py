"""Answers of policies in training: a table of them, and the arrays that they are learnt from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import jax
import numpy as np
import pyarrow as pa

from paretohqd_jax.data.batches import rounded_up
from paretohqd_jax.evaluation.frames import Frame
from paretohqd_jax.sampling.generation import padded_lengths
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.policy_gradient import Answers
from paretohqd_jax.training.policy_losses import ADVANTAGES
from paretohqd_jax.training.reinforcement import Collected

logger = logging.getLogger(__name__)


def answers_table(
    answers: Sequence[Sequence[list[int]]],
    prompts: Sequence[str],
    adapter_names: Sequence[str],
    base: BaseModel,
) -> pa.Table:
    """A row for each answer `[num_adapters][num_answers]`, adapter by adapter."""
    rows = []
    for name, of_adapter in zip(adapter_names, answers, strict=True):
        for prompt, tokens in zip(prompts, of_adapter, strict=True):
            truncated = tokens[-1] not in base.eos_token_ids
            text = base.tokenizer.decode(
                tokens if truncated else tokens[:-1], skip_special_tokens=True
            )
            rows.append(
                {"policy": name, "prompt": prompt, "response": text.strip(), "token_ids": tokens,
                 "num_tokens": len(tokens), "truncated": truncated}
            )  # fmt: skip
    return pa.Table.from_pylist(rows)


def warn_of_equal_rewards(
    rewards: np.ndarray, objectives: Sequence[str], place: str, warned: set[str]
) -> None:
    """Warns once of each objective whose rewards `[..., G, M]` are the same in every group."""
    equal = (np.ptp(rewards, axis=-2) == 0).reshape(-1, len(objectives)).all(axis=0)
    for name, all_equal in zip(objectives, equal, strict=True):
        if all_equal and name not in warned:
            warned.add(name)
            logger.warning(
                "%s: %s gives all %d answers of each group the same reward, so that nothing is "
                "learnt from it; raise config.generate.temperature or config.morlhf.num_answers, "
                "or look at the reward model", place, name, rewards.shape[-2],
            )  # fmt: skip


def collected(
    table: pa.Table,
    prompts: Sequence[list[int]],
    rewards: np.ndarray,
    frame: Frame,
    weights: np.ndarray,
    advantage: str,
    objectives: Sequence[str],
    max_new_tokens: int,
) -> Collected:
    """The answers of a table as arrays, with their advantages, and what is logged of each adapter.

    Args:
      table: of `answers_table`, in that order.
      prompts: token ids, `[num_prompts]`.
      rewards: of the reward models, `[num_adapters, num_prompts, G, num_objectives]`.
      frame: the units in which they are weighted.
      weights: `[num_adapters, num_objectives]`.
      advantage: a name in ADVANTAGES.
      objectives: names of the rewards.
      max_new_tokens: most tokens of an answer.
    """
    num_adapters, _, group_size, _ = rewards.shape
    in_units = frame.normalised(rewards)
    advantages = np.stack([
        ADVANTAGES[advantage](own, of_adapter)
        for own, of_adapter in zip(in_units, weights, strict=True)
    ]).astype(np.float32).reshape(num_adapters, -1)  # fmt: skip
    asked = [ids for ids in prompts for _ in range(group_size)] * num_adapters
    tokens, token_mask, starts, answer_mask = (
        array.reshape(*advantages.shape, *array.shape[1:])
        for array in _padded(asked, table["token_ids"].to_pylist(), max_new_tokens)
    )
    of_answers = {
        "weighted_reward": np.einsum("apgm,am->apg", in_units, weights),
        "response_tokens": table["num_tokens"].to_numpy(),
        "truncated": table["truncated"].to_numpy(zero_copy_only=False),
    }
    for name, column in zip(objectives, np.moveaxis(rewards, -1, 0), strict=True):
        of_answers[f"reward/{name}"] = column
        of_answers[f"equal_groups/{name}"] = np.ptp(column, axis=-1) == 0
    metrics = {
        name: np.asarray(values, np.float64).reshape(num_adapters, -1).mean(axis=1)
        for name, values in of_answers.items()
    }
    return Collected(Answers(tokens, token_mask, starts, answer_mask, advantages), metrics)


def _padded(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], max_new_tokens: int
) -> tuple[np.ndarray, ...]:
    """The first four arrays of `Answers`; lengths are few, whatever those of the answers are."""
    [longest] = padded_lengths([max(map(len, prompts))], 1)
    length = rounded_up(longest + max_new_tokens)
    length += jax.default_backend() != "cpu"  # as of `data.batches.one_longer`
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, : len(prompt) + len(answer)] = prompt + answer
    starts, lengths = (np.array([*map(len, texts)], np.int32) for texts in (prompts, answers))
    return (
        tokens, np.arange(length) < (starts + lengths)[:, None],
        starts, np.arange(max_new_tokens) < lengths[:, None],
    )  # fmt: skip
