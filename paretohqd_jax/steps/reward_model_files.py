"""What a reward model that was trained here leaves: its adapter and its card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from paretohqd_jax.files import write_json
from paretohqd_jax.models.reward_head import write_adapter
from paretohqd_jax.pipeline import Output
from paretohqd_jax.rewards.registry import CARD, Entry
from paretohqd_jax.steps.base_model import BaseModel
from paretohqd_jax.training.checkpoints import load_adapters

WEIGHTS = "reward_model.safetensors"


def write_reward_model(
    path: Path,
    scratch: Path,
    trained: Output,
    measured: Output,
    matched: Output | None = None,
    *,
    base: BaseModel,
    entry: Entry,
    **facts: dict[str, Any],
) -> None:
    """Writes the directory that the reward model is loaded from."""
    metrics = json.loads(measured.path.read_text())
    entry = dataclasses.replace(
        entry, published=f"held-out pair accuracy {metrics['accuracy']:.3f}"
    )
    layers = f"the first {base.config.num_layers}" if base.num_layers else "all"
    facts["layers"] = layers
    parts = {name: metrics.pop(name) for name in ("robustness", "validation") if name in metrics}
    facts |= parts | {"metrics": metrics}
    write_model(path, trained, matched, base, entry, facts)


def write_model(
    directory: Path,
    trained: Output,
    matched: Output | None,
    base: BaseModel,
    entry: Entry,
    facts: dict[str, Any],
) -> None:
    """The trained adapter as safetensors, and the card: entry, adapter's options and `facts`."""
    stack = load_adapters(trained.path, checkpoint_meta(base))
    adapter = jax.tree.map(lambda leaf: leaf[0], stack)
    if matched is not None:
        adapter["match"] = load_file(matched.path)
    write_adapter(directory / WEIGHTS, adapter, base.lora, base.config.num_layers)
    lora = {"lora": dataclasses.asdict(base.lora)}
    write_json(directory / CARD, dataclasses.asdict(entry) | lora | facts)


def card_of_data(config: ConfigDict) -> dict[str, Any]:
    """What a reader of the card must know to read the same data: options, and the file's name."""
    options = config.data.to_dict()
    return options | {"source": Path(options["source"]).name, "about": config.card.data}


def checkpoint_meta(base: BaseModel) -> dict[str, Any]:
    """What an adapter must share with a run that reads it."""
    lora = dataclasses.asdict(base.lora) | {"targets": [*base.lora.targets]}
    return {"model": base.source, "num_layers": base.config.num_layers, "lora": lora}
