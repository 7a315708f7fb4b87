"""The step that trains adapters by the rewards of their own answers, each for its own weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.config.morlhf import num_steps
from paretohqd_jax.data.batches import batch_rows
from paretohqd_jax.data.reward_columns import rewards_matrix
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.distributed import is_main_process, on_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.frames import Frame, z_score_frame
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import preference_labels
from paretohqd_jax.rewards.resident import resident_scorers
from paretohqd_jax.sampling.generation import encode_prompts
from paretohqd_jax.sampling.groups import sample_groups
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps.answers import answers_table, collected, warn_of_equal_rewards
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.candidates import is_candidate
from paretohqd_jax.steps.capacity import check_reinforcement_memory
from paretohqd_jax.steps.generation import prompts_of
from paretohqd_jax.steps.scoring import reference_rows, with_rewards
from paretohqd_jax.steps.task import Task, checkpoints
from paretohqd_jax.steps.training import checkpoint_meta, training_step
from paretohqd_jax.training.mesh import DECODING_RULES, sharded
from paretohqd_jax.training.placement import fresh_adapters
from paretohqd_jax.training.reinforcement import Collected, PolicyConfig
from paretohqd_jax.training.reinforcement import reinforce as train_policies
from paretohqd_jax.training.step import OptimizerConfig

logger = logging.getLogger(__name__)

ANSWERS = "answers"  # the folder of an update's answers, beside the checkpoints of its stack


def reinforce(task: Task, name: str, weights: np.ndarray, scored: Output) -> Output:
    """Trains an adapter for each row of weights, on answers of its own to training prompts.

    Leaves the stack, and in its folder `answers` the answers of each update, with their rewards.

    Args:
      task: its `config.morlhf`, `config.generate` and `config.train` say how.
      name: of the step, and of the directory of the stack.
      weights: of the objectives, `[num_adapters, num_objectives]`.
      scored: rows, whose prompts are answered, and whose rewards set the units where these are
        the reward models'.
    """
    config = task.config
    if config.generate.engine == "external":
        logger.warning(
            "%s: the answers that are learnt from are decoded here, as every update has other "
            "models; config.generate.engine='external' answers in the evaluation alone", name,
        )  # fmt: skip
    models = list(config.rewards.models)
    scorers = {"models": models, "backend": config.rewards.backend, "dtype": config.rewards.dtype}
    sampling = {name: config.generate[name] for name in ("max_new_tokens", "temperature")}
    policy = config.morlhf.to_dict()
    work = partial(
        train_by_rewards, decoded_together=config.generate.batch_size,
        scored_together=config.rewards.batch_size,
        max_kl=policy.pop("max_kl"),  # decides whether training goes on, not what comes of it
    )  # fmt: skip
    return training_step(
        task, name, work, scored, reference_rows(task, scored),
        adapter_names=preference_labels(weights), weights=weights.tolist(),
        objectives=task.objectives, scorers=scorers | checkpoints(models, task.base),
        sampling=sampling, policy=policy, num_steps=num_steps(config),
    )  # fmt: skip


def train_by_rewards(
    path: Path,
    scratch: Path,
    scored: Output,
    reference: Output,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    weights: Sequence[Sequence[float]],
    objectives: Sequence[str],
    scorers: Mapping[str, Any],
    sampling: Mapping[str, Any],
    policy: Mapping[str, Any],
    decoded_together: int,
    scored_together: int,
    max_kl: float,
    num_steps: int,
    batch_size: int,
    num_microbatches: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    checkpoint_every: int,
    log_directory: Path,
    seed: int,
) -> dict[str, int]:
    """Trains them; `policy` are the other options of `config.morlhf`. Returns what that cost."""
    num_adapters, seed = len(adapter_names), step_seed(seed, path.name)
    how = SamplingConfig(**sampling)
    prompts, encoded = _prompts(scored, base, how, policy["max_prompt_tokens"])
    check_reinforcement_memory(
        base, num_adapters, policy["num_prompts"] * policy["num_answers"],
        max(map(len, encoded)), how, decoded_together, batch_size, num_microbatches,
    )  # fmt: skip
    frame = _units(reference, objectives, policy["normalize"])
    with sharded(base.mesh, DECODING_RULES):
        score = resident_scorers(
            scorers["models"], backend=scorers["backend"], dtype=scorers["dtype"],
            batch_size=scored_together, base=base,
        )  # fmt: skip
    key = jax.random.key(step_seed(seed, "answers"))
    warned: set[str] = set()

    def sample(update: int, chosen: np.ndarray, adapters: Any) -> pa.Table:
        answers = sample_groups(
            base.model, base.params_by_layer, adapters, [encoded[i] for i in chosen],
            policy["num_answers"], jax.random.fold_in(key, update), base.eos_token_ids, how,
            decoded_together,
        )  # fmt: skip
        asked = np.repeat(chosen, policy["num_answers"])
        return answers_table(answers, [prompts[i] for i in asked], adapter_names, base)

    def judge(update: int, table: pa.Table) -> pa.Table:
        description = f"{path.name}, update {update}"
        rewards = score(table["prompt"].to_pylist(), table["response"].to_pylist(), description)
        return with_rewards(table, rewards, objectives)

    def collect(update: int, adapters: Any) -> Collected:
        chosen = batch_rows(seed, 0, update, len(prompts), policy["num_prompts"])
        with sharded(base.mesh, DECODING_RULES):
            sampled = partial(
                _kept, scratch / f"{update:06d}.parquet", lambda: sample(update, chosen, adapters)
            )
            table = _kept(
                path / ANSWERS / f"{update:06d}.parquet", lambda: judge(update, sampled())
            )
        shape = (num_adapters, policy["num_prompts"], policy["num_answers"])
        rewards = rewards_matrix(table, objectives, path).reshape(*shape, -1)
        warn_of_equal_rewards(rewards, objectives, f"{path.name}, update {update}", warned)
        return collected(
            table, [encoded[i] for i in chosen], rewards, frame, np.array(weights),
            policy["advantage"], objectives, how.max_new_tokens,
        )  # fmt: skip

    train_policies(
        base.model, lambda: base.params,
        lambda: fresh_adapters(base.mesh, base.model, step_seed(seed, "init"), num_adapters),
        collect,
        PolicyConfig(
            policy["num_updates"], policy["num_epochs"], policy["clip"], policy["kl"],
            max_kl, how.temperature,
        ),
        OptimizerConfig(learning_rate, num_steps, warmup_steps, weight_decay, max_grad_norm),
        mesh=base.mesh, batch_size=batch_size, num_microbatches=num_microbatches, seed=seed,
        adapter_names=adapter_names, directory=path, checkpoint_every=checkpoint_every,
        log_directory=log_directory / path.name, meta=checkpoint_meta(base, adapter_names),
        description=f"{path.name} of {num_adapters} adapters",
    )  # fmt: skip
    num_tokens = on_main_process(lambda: _tokens_in(path / ANSWERS))
    return {
        "optimizer_steps": num_adapters * num_steps,
        "tokens_trained": policy["num_epochs"] * num_tokens,
        "tokens_generated": num_tokens,
    }


def _prompts(
    scored: Output, base: BaseModel, sampling: SamplingConfig, max_tokens: int
) -> tuple[list[str], list[list[int]]]:
    """The different training prompts that are short enough, as texts and as token ids.

    Raises InputError if there is none.
    """
    prompts = prompts_of(scored, "train")
    context = base.config.max_position_embeddings
    encoded = encode_prompts(base.tokenizer, base.format(prompts), context, sampling)
    short = [i for i, ids in enumerate(encoded) if len(ids) <= max_tokens]
    if not short:
        raise InputError(
            f"none of {len(prompts)} training prompts has config.morlhf.max_prompt_tokens="
            f"{max_tokens} tokens or less; the shortest has {min(map(len, encoded))}"
        )
    logger.info(
        "%d training prompts to answer, %d more are longer than %d tokens",
        len(short), len(prompts) - len(short), max_tokens,
    )  # fmt: skip
    return [prompts[i] for i in short], [encoded[i] for i in short]


def _units(reference: Output, objectives: Sequence[str], normalize: bool) -> Frame:
    """In which rewards are weighted."""
    table = read_table(reference.path)
    rewards = rewards_matrix(table, objectives, reference.path)[is_candidate(table)]
    if normalize:
        return z_score_frame(rewards, "training rows")
    nothing = np.zeros(len(objectives))
    return Frame("raw", "the reward models", nothing, nothing + 1, nothing)


def _kept(path: Path, make: Callable[[], pa.Table]) -> pa.Table:
    """The table at `path`, which an earlier process may have left there, or else as it is made."""
    rows = on_main_process(lambda: read_table(path).to_pylist() if path.exists() else None)
    if rows is not None:
        return pa.Table.from_pylist(rows)
    table = make()
    if is_main_process():
        write_table(path, table)
    return table


def _tokens_in(directory: Path) -> int:
    """Of all answers."""
    tables = map(read_table, sorted(directory.glob("[0-9]*.parquet")))
    return sum(pc.sum(table["num_tokens"]).as_py() for table in tables)
