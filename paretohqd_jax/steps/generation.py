"""The steps methods are made of. Each reads the outputs of earlier steps and leaves one of its own.

The first two arguments of every step are the path of its output and a scratch directory for
shards; then come the outputs it reads, then its options. Steps that use the devices of all hosts
are called in every process and write files in the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretohqd_jax.data.batches import Examples, tokenize
from paretohqd_jax.data.rows import drop_duplicates, read_table, write_table
from paretohqd_jax.distributed import is_main_process
from paretohqd_jax.methods.base import BaseModel, step_seed
from paretohqd_jax.methods.capacity import check_generation_memory, check_training_memory
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.pipeline import Output
from paretohqd_jax.sampling.external import external_responses
from paretohqd_jax.sampling.generation import encode_prompts, generate_responses
from paretohqd_jax.sampling.sampler import SamplingConfig
from paretohqd_jax.training.checkpoints import load_adapters
from paretohqd_jax.training.loop import fine_tune
from paretohqd_jax.training.mesh import DECODING_RULES, sharded
from paretohqd_jax.training.placement import fresh_adapters, place_adapters
from paretohqd_jax.training.step import OptimizerConfig

logger = logging.getLogger(__name__)


def fine_tune_selected(
    path: Path,
    scratch: Path,
    scored: Output,
    selection: Output,
    start: Output | None = None,
    *,
    base: BaseModel,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    num_microbatches: int,
    checkpoint_every: int,
    adapter_names: Sequence[str],
    log_directory: Path,
    seed: int,
) -> None:
    """Fine-tunes one adapter per preference on its selected rows (S3, S6 of docs/method.md).

    Starts from the adapters of `start`, or from fresh ones.
    """
    num_adapters = len(adapter_names)
    examples = _selected_examples(base, scored, selection, num_adapters)
    length = examples.tokens.shape[-1]
    check_training_memory(base, num_adapters, batch_size, length, num_microbatches)

    def first_adapters() -> Any:
        if start is None:
            return fresh_adapters(base.mesh, base.model, step_seed(seed, "init"), num_adapters)
        trained = trained_adapters(start, base, adapter_names)
        return place_adapters(base.mesh, base.model, trained)

    optimizer = OptimizerConfig(learning_rate, num_steps, warmup_steps, weight_decay, max_grad_norm)
    fine_tune(
        base.model, base.params, first_adapters, examples, optimizer, mesh=base.mesh,
        batch_size=batch_size, num_microbatches=num_microbatches, seed=seed,
        adapter_names=adapter_names, directory=path, checkpoint_every=checkpoint_every,
        log_directory=log_directory / path.name, meta=checkpoint_meta(base, adapter_names),
        description=f"{path.name} of {num_adapters} adapters",
    )  # fmt: skip


def checkpoint_meta(base: BaseModel, adapter_names: Sequence[str]) -> dict[str, Any]:
    """What adapters must share with a run that reads them."""
    lora = {name: getattr(base.lora, name) for name in ("rank", "alpha", "dropout")}
    lora["targets"] = [*base.lora.targets]
    return {"model": base.source, "lora": lora, "adapters": [*adapter_names]}


def trained_adapters(stage: Output, base: BaseModel, adapter_names: Sequence[str]) -> Any:
    """The stack of adapters that a finished stage left, one per preference."""
    return load_adapters(stage.path, checkpoint_meta(base, adapter_names))


def _selected_examples(
    base: BaseModel, scored: Output, selection: Output, num_adapters: int
) -> Examples:
    """The selected rows as `[num_adapters, k, length]` arrays."""
    row_ids = read_table(selection.path)["row_id"].to_numpy()
    rows = read_table(scored.path).take(row_ids)
    prompts = base.format(rows["prompt"].to_pylist())
    context = base.config.max_position_embeddings
    truncated = rows["truncated"].to_pylist() if "truncated" in rows.column_names else None
    examples = tokenize(
        base.tokenizer, prompts, rows["response"].to_pylist(), context, truncated,
        source=scored.path, row_ids=row_ids,
    )  # fmt: skip
    return jax.tree.map(lambda array: array.reshape(num_adapters, -1, array.shape[-1]), examples)


def generate_from_representatives(
    path: Path,
    scratch: Path,
    scored: Output,
    stage1: Output,
    *,
    base: BaseModel,
    adapter_names: Sequence[str],
    representatives: Sequence[int],
    num_prompts: int,
    batch_size: int,
    engine: str,
    sampling: dict[str, Any],
    seed: int,
) -> None:
    """Each representative answers the same random training prompts (S4 of docs/method.md)."""
    table = read_table(scored.path)
    prompts = pc.unique(table.filter(pc.equal(table["split"], "train"))["prompt"]).to_pylist()
    if num_prompts > len(prompts):
        logger.info("generating for all %d training prompts", len(prompts))
    order = np.random.default_rng(step_seed(seed, "prompts")).permutation(len(prompts))
    prompts = [prompts[i] for i in order[:num_prompts]]
    adapters = trained_adapters(stage1, base, adapter_names)
    adapters = jax.tree.map(lambda leaf: leaf[np.array(representatives)], adapters)
    responses = _respond(
        base, adapters, prompts, engine, sampling, batch_size, scratch, seed, "generate"
    )
    chosen = np.array(representatives, np.int32)[responses["adapter"].to_numpy()]
    responses = drop_duplicates(responses.append_column("representative", pa.array(chosen)))
    if is_main_process():
        write_table(path, responses)


def respond_to_test_prompts(
    path: Path,
    scratch: Path,
    scored: Output,
    *stages: Output,
    base: BaseModel,
    adapter_names: Sequence[str],
    batch_size: int,
    engine: str,
    sampling: dict[str, Any],
    seed: int,
) -> None:
    """The base model and the models of all stages answer every held-out prompt.

    Adapter 0 is the base model (an adapter of zeros changes nothing), then come those of each stage
    in the order of the preferences.
    """
    table = read_table(scored.path)
    prompts = pc.unique(table.filter(pc.equal(table["split"], "test"))["prompt"]).to_pylist()
    trained = [trained_adapters(stage, base, adapter_names) for stage in stages]
    zeros = jax.tree.map(lambda leaf: np.zeros_like(leaf[:1]), trained[0])
    adapters = jax.tree.map(lambda *leaves: np.concatenate(leaves), zeros, *trained)
    responses = _respond(
        base, adapters, prompts, engine, sampling, batch_size, scratch, seed, "respond"
    )
    if is_main_process():
        write_table(path, responses)


def _respond(
    base: BaseModel,
    adapters: Any,
    prompts: list[str],
    engine: str,
    sampling: dict[str, Any],
    batch_size: int,
    scratch: Path,
    seed: int,
    name: str,
) -> pa.Table:
    how = SamplingConfig(**sampling)
    context = base.config.max_position_embeddings
    encoded = encode_prompts(base.tokenizer, base.format(prompts), context, how)
    key = jax.random.key(step_seed(seed, name))
    request = (adapters, base.tokenizer, encoded, key, how)
    options = {"eos_token_ids": base.eos_token_ids, "directory": scratch, "description": name}
    if engine == "external":
        responses = external_responses(base.model, base.source, *request, **options)
    else:
        check_generation_memory(base, adapters, encoded, how.max_new_tokens, batch_size, name)
        with sharded(base.mesh, DECODING_RULES):
            responses = generate_responses(
                base.model, base.params, *request, batch_size=batch_size, **options
            )
    column = pa.array(prompts).take(responses["prompt_id"].combine_chunks())
    return responses.append_column("prompt", column)


def export_adapters(
    path: Path, scratch: Path, trained: Output, *, base: BaseModel, adapter_names: Sequence[str]
) -> None:
    """Writes each preference's adapter in PEFT's format."""
    adapters = trained_adapters(trained, base, adapter_names)
    for index, name in enumerate(adapter_names):
        adapter = jax.tree.map(lambda leaf, index=index: leaf[index], adapters)
        export_peft(path / name, adapter, base.lora, base.config, base.source)
