"""The steps in which policies answer: training prompts, for new rows, or the held-out ones."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.pipeline import Output
from paretohqd_jax.policies import Policies, Policy, read_policies
from paretohqd_jax.sampling.external import external_responses
from paretohqd_jax.sampling.generation import encode_prompts, generate_responses
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.steps.base_model import BaseModel, step_seed
from paretohqd_jax.steps.capacity import check_generation_memory
from paretohqd_jax.steps.stacks import answerers_of, is_mixture
from paretohqd_jax.steps.task import Task, sampling_options
from paretohqd_jax.training.mesh import DECODING_RULES, sharded

logger = logging.getLogger(__name__)


def generate(
    task: Task,
    name: str,
    path: str,
    scored: Output,
    policies: Sequence[Policy],
    *stacks: Output,
) -> Output:
    """Each policy answers the same random training prompts of the scored rows.

    `stacks` are those that the policies' adapters lie in. A policy that is there several times
    answers as often.
    """
    config = task.config
    return task.run.step(
        name, path,
        partial(
            answer_training_prompts, base=task.base, workdir=task.run.workdir, name=name,
            batch_size=config.generate.batch_size, engine_command=config.generate.engine_command,
        ),
        scored, *stacks,
        policies=[dataclasses.asdict(policy) for policy in policies],
        stacks={stack.path.name: stack.options["adapter_names"] for stack in stacks},
        num_prompts=config.generate.num_prompts, sampling=sampling_options(config.generate),
        engine=config.generate.engine, seed=config.seed, also=task.network, all_processes=True,
    )  # fmt: skip


def respond(task: Task, scored: Output, policies: Output) -> Output:
    """The base model and every policy of a run answer each held-out prompt."""
    config = task.config
    return task.run.step(
        "respond", "evaluation/responses.parquet",
        partial(
            answer_test_prompts, base=task.base, workdir=task.run.workdir,
            batch_size=config.evaluate.batch_size, engine_command=config.generate.engine_command,
        ),
        scored, policies,
        sampling=sampling_options(config.evaluate), engine=config.generate.engine,
        seed=config.seed, also=task.network, all_processes=True,
    )  # fmt: skip


def answer_training_prompts(
    path: Path,
    scratch: Path,
    scored: Output,
    *_: Output,
    base: BaseModel,
    workdir: Path,
    name: str,
    policies: Sequence[Mapping[str, Any]],
    stacks: dict[str, list[str]],
    num_prompts: int,
    batch_size: int,
    engine: str,
    engine_command: str,
    sampling: Mapping[str, Any],
    seed: int,
) -> dict[str, int]:
    """Leaves the responses, no two alike to one prompt, with the `policy` of each by its label.

    Returns what that cost, in tokens.
    """
    prompts = prompts_of(scored, "train")
    if num_prompts > len(prompts):
        logger.info("generating for all %d training prompts", len(prompts))
    order = np.random.default_rng(step_seed(seed, "prompts")).permutation(len(prompts))
    prompts = [prompts[i] for i in order[:num_prompts]]
    answering = [Policy(**values) for values in policies]
    responses = answers_of(
        answering, stacks, workdir, base, prompts, engine, sampling, batch_size, scratch, seed,
        name, "generate", engine_command,
    )  # fmt: skip
    labels = pa.array([policy.label for policy in answering])
    responses = responses.append_column("policy", labels.take(responses["answerer"]))
    if is_main_process():
        write_table(path, drop_duplicates(responses.drop_columns(["answerer"])))
    return {"tokens_generated": pc.sum(responses["num_tokens"]).as_py()}


def answer_test_prompts(
    path: Path,
    scratch: Path,
    scored: Output,
    policies: Output,
    *,
    base: BaseModel,
    workdir: Path,
    batch_size: int,
    engine: str,
    engine_command: str,
    sampling: Mapping[str, Any],
    seed: int,
) -> None:
    """Leaves one response of each policy to each prompt, with its `family` and `policy` by label.

    The base model, of no family, comes first, then the families in their order.
    """
    run: Policies = read_policies(policies.path)
    families, answering = zip(*run.every(), strict=True)
    responses = answers_of(
        answering, run.stacks, workdir, base, prompts_of(scored, "test"), engine, sampling,
        batch_size, scratch, seed, "respond", "evaluate", engine_command,
    )  # fmt: skip
    for name, values in (("family", families), ("policy", [each.label for each in answering])):
        responses = responses.append_column(name, pa.array(values).take(responses["answerer"]))
    if is_main_process():
        write_table(path, responses.drop_columns(["answerer"]))


def prompts_of(scored: Output, split: str) -> list[str]:
    """The different prompts of a split, in the order of the rows."""
    table = read_table(scored.path)
    return pc.unique(table.filter(pc.equal(table["split"], split))["prompt"]).to_pylist()


def answers_of(
    policies: Sequence[Policy],
    stacks: dict[str, list[str]],
    workdir: Path,
    base: BaseModel,
    prompts: Sequence[str],
    engine: str,
    sampling: Mapping[str, Any],
    batch_size: int,
    scratch: Path,
    seed: int,
    name: str,
    group: str,
    engine_command: str = "",
) -> pa.Table:
    """One response of every policy to every prompt, policy by policy, as `config.GROUP` says.

    Columns are those of `generate_responses`, whose `answerer` counts the policies, and `prompt`.

    Raises:
      InputError: as `answerers_of` and `encode_prompts`; or there is not the memory; or an engine
        outside shall answer for a policy that mixes logits.
    """
    if engine == "external":
        check_unmixed(policies)
    adapters, lora, answerers = answerers_of(policies, stacks, workdir, base)
    if engine == "external":  # to which each policy is an adapter
        numbers = np.array([answerer.adapters[0] for answerer in answerers])
        adapters = jax.tree.map(lambda leaf: leaf[numbers], adapters)
    base = base.with_lora(lora)
    how = SamplingConfig(**sampling)
    encoded = _encoded(policies, base, prompts, how)
    key = jax.random.key(step_seed(seed, name))
    request = (adapters, base.tokenizer, encoded, key, how)
    options = {"eos_token_ids": base.eos_token_ids, "directory": scratch, "description": name}
    if engine == "external":
        responses = external_responses(
            base.model, base.source, *request, **options, command=engine_command
        )
    else:
        check_generation_memory(base, encoded, answerers, how, batch_size, name, group)
        with sharded(base.mesh, DECODING_RULES):
            responses = generate_responses(
                base.model, base.params_by_layer, *request, answerers=answerers,
                batch_size=batch_size, **options,
            )  # fmt: skip
    asked = pa.array(prompts).take(responses["prompt_id"].combine_chunks())
    return responses.append_column("prompt", asked)


def check_unmixed(policies: Sequence[Policy]) -> None:
    """Raises InputError for a policy that mixes logits, which a serving engine cannot."""
    for policy in policies:
        if is_mixture(policy):
            raise InputError(
                f"policy {policy.label} mixes the logits of {' and '.join(policy.adapters)}, for "
                "which no serving engine has a way; set config.generate.engine='jax'"
            )


def _encoded(
    policies: Sequence[Policy], base: BaseModel, prompts: Sequence[str], how: SamplingConfig
) -> list[list[list[int]]]:
    """The token ids with which each policy is asked each prompt, `[num_policies][num_prompts]`.

    Policies without words of their own share one encoding.
    """
    context = base.config.max_position_embeddings
    shared: dict[str | None, list[list[int]]] = {}
    for policy in policies:
        if policy.prompt not in shared:
            texts = base.format([policy.ask(prompt) for prompt in prompts])
            shared[policy.prompt] = encode_prompts(base.tokenizer, texts, context, how)
    return [shared[policy.prompt] for policy in policies]
