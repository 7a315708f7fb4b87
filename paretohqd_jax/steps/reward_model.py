"""The steps that train a reward model: groups of responses, training, measuring, leaving it."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from paretohqd_jax.data.groups import TEST, TRAIN, VALIDATION, group_responses
from paretohqd_jax.data.negatives import parse_negatives, with_negatives
from paretohqd_jax.data.rows import read_table, write_table
from paretohqd_jax.data.sources import read_source
from paretohqd_jax.distributed import is_main_process, on_main_process
from paretohqd_jax.errors import InputError
from paretohqd_jax.evaluation.robustness import NUM_PROMPTS
from paretohqd_jax.files import absolute_source, write_json
from paretohqd_jax.manifest import LOGS
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.pipeline import Output, Run, source_digest
from paretohqd_jax.rewards.registry import Entry
from paretohqd_jax.rewards.reward_model import encode_pairs
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.steps.capacity import check_training_memory
from paretohqd_jax.steps.matching import match_groups, pad_texts
from paretohqd_jax.steps.measuring import measure_groups
from paretohqd_jax.steps.reward_model_files import (
    WEIGHTS,
    card_of_data,
    checkpoint_meta,
    write_model,
    write_reward_model,
)
from paretohqd_jax.steps.robustness import answers_for_copies, measure_robustness
from paretohqd_jax.training.comparisons import (
    Groups,
    bradley_terry_objective,
    regression_objective,
)
from paretohqd_jax.training.loop import fine_tune
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded
from paretohqd_jax.training.placement import fresh_adapters
from paretohqd_jax.training.step import OptimizerConfig

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RewardTask:
    """What these steps share: options, run directory, the language model, how it reads texts."""

    config: ConfigDict
    run: Run
    base: BaseModel
    entry: Entry

    @property
    def network(self) -> dict[str, Any]:
        """What rewards depend on besides the options of a step."""
        base, entry = self.base, self.entry
        return {
            "model": source_digest(base.source),
            "num_layers": base.num_layers,
            "dtype": base.dtype,
            "lora": dict(self.config.lora),
            "texts": list(entry.texts),
            "cut": entry.cut,
            "max_tokens": entry.max_tokens,
        }

    @property
    def training(self) -> dict[str, Any]:
        """The options of training that decide its result."""
        train = self.config.train.items()
        return {name: v for name, v in train if name not in ("checkpoint_every", "held_out_loss")}


def open_reward_task(config: ConfigDict, run: Run) -> RewardTask:
    """The task of a run that trains a reward model."""
    return RewardTask(config, run, base_model(config), entry_of(config))


def group(task: RewardTask) -> Output:
    """Groups of responses to one prompt, some prompts held out."""
    data = task.config.data.to_dict()
    return task.run.step(
        "group", "groups.parquet", partial(group_data, options=data), seed=task.config.seed,
        also={"data": source_digest(task.config.data.source), "options": data},
    )  # fmt: skip


def train(task: RewardTask, groups: Output) -> Output:
    """Adapter and head, trained on the training groups."""
    work = partial(
        train_on_groups, base=task.base, entry=task.entry, log_directory=task.run.workdir / LOGS,
        checkpoint_every=task.config.train.checkpoint_every,
        held_out_loss=task.config.train.held_out_loss,
    )  # fmt: skip
    return task.run.step(
        "train", "checkpoints", work, groups, margin=task.config.data.margin,
        seed=task.config.seed, **task.training, also=task.network, all_processes=True,
    )  # fmt: skip


def match(task: RewardTask, groups: Output) -> Output | None:
    """What tells whether a response answers its prompt, or None where rewards are without."""
    options = dict(task.config.match)
    if not options["num_steps"]:
        return None
    work = partial(match_groups, base=task.base, entry=task.entry)
    also = {name: task.network[name] for name in ("model", "texts", "cut", "max_tokens")}
    return task.run.step(
        "match", "match.safetensors", work, groups, seed=task.config.seed, **options, also=also
    )


def measure(task: RewardTask, groups: Output, trained: Output, matched: Output | None) -> Output:
    """Its agreement with the preferences that were held out."""
    work = partial(measure_held_out, base=task.base, entry=task.entry)
    return task.run.step(
        "measure", "metrics.json", work, groups, trained, *filter(None, [matched]),
        margin=task.config.data.margin,
        also=task.network, all_processes=True,
    )  # fmt: skip


def export(task: RewardTask, trained: Output, matched: Output | None, measured: Output) -> Output:
    """The directory that the reward model is loaded from."""
    entry = task.entry
    facts = {"training": task.training | {"seed": task.config.seed}}
    if matched is not None:
        facts["match"] = dict(task.config.match)
    return task.run.step(
        "export", "reward_model", partial(write_reward_model, base=task.base, entry=entry),
        trained, measured, *filter(None, [matched]), data=card_of_data(task.config), **facts,
        also={"licence": entry.licence, "note": entry.note},
    )  # fmt: skip


def base_model(config: ConfigDict) -> BaseModel:
    """The language model that the reward model is a part of."""
    model = config.model
    return BaseModel(
        model.source, model.dtype, model.remat, "{prompt}", LoraConfig(**config.lora, head=True),
        model.attention, make_mesh(**config.mesh), model.num_layers or None,
    )  # fmt: skip


def entry_of(config: ConfigDict) -> Entry:
    """How the reward model reads texts, and what its card says of it."""
    return Entry(
        absolute_source(config.model.source), tuple(config.text.texts), cut=config.text.cut,
        max_tokens=config.text.max_tokens, licence=config.card.licence, note=config.card.note,
        adapter=WEIGHTS,
    )  # fmt: skip


def group_data(path: Path, scratch: Path, *, options: dict[str, Any], seed: int) -> None:
    """Reads pairs or scored rows, splits their groups by prompt, and adds corrupted copies."""
    options = dict(options)
    negatives = parse_negatives(options.pop("negatives"))
    margin = options.pop("margin")
    reading = {name: options.pop(name) for name in ("format", "columns", "split", "revision")}
    source = options.pop("source")
    table = read_source(source, **reading)
    groups = group_responses(table, **options, seed=seed, source=source)
    for part in (TRAIN, TEST, *([VALIDATION] if options["validation_share"] else [])):
        scores = groups.filter(pc.equal(groups["split"], part))["scores"].to_pylist()
        if not any(max(group) - min(group) >= margin for group in scores):
            shares = ", ".join(
                f"config.data.{name}={options[name]}"
                for name in ("validation_share", "test_share", "train_part")
            )
            raise InputError(
                f"{source}: no pair of responses is left for {part}, with {shares} and "
                f"config.data.margin={margin}; give more prompts or lower the margin, which of "
                "pairs is 1 at most"
            )
    write_table(path, with_negatives(groups, negatives, seed))


def train_on_groups(
    path: Path,
    scratch: Path,
    groups: Output,
    *,
    base: BaseModel,
    entry: Entry,
    loss: str,
    margin: float,
    num_steps: int,
    batch_size: int,
    num_microbatches: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    checkpoint_every: int,
    log_directory: Path,
    held_out_loss: bool,
    seed: int,
) -> None:
    """Trains adapter and head on the training groups, `batch_size` groups per step."""
    table = read_table(groups.path)
    parts = [table.filter(pc.equal(table["split"], part)) for part in (TRAIN, TEST)]
    parts[1] = parts[1].slice(0, batch_size)
    if not held_out_loss or parts[1].num_rows < batch_size:
        parts.pop()
    read = [tokenize_groups(base, entry, part) for part in parts]
    objective = bradley_terry_objective(margin)
    if loss == "regression":
        objective = regression_objective()
        mean, deviation = read[0].scores.mean(), read[0].scores.std()
        read = [groups._replace(scores=(groups.scores - mean) / deviation) for groups in read]
    examples, *held_out = jax.tree.map(lambda array: array[None], read)
    num_responses, length = examples.tokens.shape[2:]
    check_training_memory(base, 1, batch_size, length, num_microbatches, num_responses)
    fine_tune(
        base.model, base.params, lambda: fresh_adapters(base.mesh, base.model, seed, 1),
        examples,
        OptimizerConfig(learning_rate, num_steps, warmup_steps, weight_decay, max_grad_norm),
        mesh=base.mesh, batch_size=batch_size, num_microbatches=num_microbatches, seed=seed,
        adapter_names=["reward"], directory=path, checkpoint_every=checkpoint_every,
        log_directory=log_directory / path.name, meta=checkpoint_meta(base),
        description="reward model", objective=objective,
        held_out=held_out[0] if held_out else None,
    )  # fmt: skip


def tokenize_groups(base: BaseModel, entry: Entry, table: pa.Table) -> Groups:
    """The groups of a table as arrays `[num_groups, G, length]`, padded on the right."""
    responses = table["responses"].to_pylist()
    size = len(responses[0])
    prompts = [prompt for prompt in table["prompt"].to_pylist() for _ in range(size)]
    texts = list(itertools.chain.from_iterable(responses))
    ids, is_cut = encode_pairs(
        base.tokenizer, entry.texts, entry.cut, entry.max_tokens, prompts, texts
    )
    logger.info(
        "%d of %d texts were cut to config.text.max_tokens=%d",
        sum(is_cut), len(ids), entry.max_tokens,
    )  # fmt: skip
    padded = pad_texts(ids)
    shape = (-1, size, padded.tokens.shape[1])
    scores = np.array(table["scores"].to_pylist(), np.float32)
    return Groups(padded.tokens.reshape(shape), padded.mask.reshape(shape), scores)


def measure_held_out(
    path: Path,
    scratch: Path,
    groups: Output,
    trained: Output,
    matched: Output | None = None,
    *,
    base: BaseModel,
    entry: Entry,
    margin: float,
) -> None:
    """Measures the reward model, as it will be loaded, on the groups that were held out.

    Leaves the figures of `measure_groups` on the test part, and under `robustness` those of
    `measure_robustness`; under `validation`, where prompts were held out for it, the same of these.
    """
    directory = scratch / "reward_model"
    on_main_process(lambda: write_model(directory, trained, matched, base, entry, {}))
    table = read_table(groups.path)

    def measured(part: str) -> dict[str, Any]:
        its_groups = table.filter(pc.equal(table["split"], part))
        metrics = measure_groups(str(directory), its_groups, margin, scratch)
        answers = answers_for_copies(its_groups, NUM_PROMPTS)
        robustness, _ = measure_robustness(f"reward={directory}", answers, store=scratch)
        return metrics | {"robustness": robustness}

    with sharded(base.mesh, DECODING_RULES):
        figures = measured(TEST)
        if VALIDATION in table["split"].to_pylist():
            figures["validation"] = measured(VALIDATION)
    if is_main_process():
        write_json(path, figures)
