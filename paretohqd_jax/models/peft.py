"""Adapters out, in the format of the PEFT library (and so of vLLM and others)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.files import absolute_source, write_json, write_tensors
from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.weights import KERNELS


def export_peft(
    directory: Path,
    adapter: dict[str, Any],
    lora: LoraConfig,
    config: LlamaConfig,
    base_model_name: str,
) -> None:
    """Writes adapter_model.safetensors and adapter_config.json.

    Args:
      directory: where they go; made if missing.
      adapter: one adapter, no leading axis.
      lora: its configuration.
      config: the base model's configuration.
      base_model_name: what a reader of the file should load as the base model; a path here is
        written as an absolute one.
    """
    tensors = {}
    for target, factors in adapter["layers"].items():
        for layer in range(config.num_layers):
            name = f"base_model.model.{config.backbone}.layers.{layer}.{KERNELS[target]}"
            # PEFT keeps both factors as [out, in]; a transposed view must be laid out anew.
            for factor, array in (("lora_A", factors["a"]), ("lora_B", factors["b"])):
                transposed = np.asarray(array[layer], np.float32).T
                tensors[f"{name}.{factor}.weight"] = np.ascontiguousarray(transposed)
    write_tensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})
    # Last, so that a directory with a configuration is complete.
    write_json(
        directory / "adapter_config.json",
        {
            "base_model_name_or_path": absolute_source(base_model_name),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "peft_type": "LORA",
            "r": lora.rank,
            "target_modules": _target_modules(config, lora),
            "task_type": "CAUSAL_LM",
        },
    )


def _target_modules(config: LlamaConfig, lora: LoraConfig) -> list[str] | str:
    """Ends of the adapted modules' names; of a model that sees a regular expression of the names,
    for the part that sees has modules with the same ends."""
    targets = sorted(lora.targets)
    if config.backbone == "model":
        return targets
    return rf"{re.escape(config.backbone)}\.layers\.\d+\.\w+\.({'|'.join(targets)})"
