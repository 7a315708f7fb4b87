"""Writes `adapter/`, what `export_peft` makes of a fixed adapter for the checkpoint `untied`.

Run with the project's environment, then make_goldens.py with torch's:
    python tests/models/golden/export_adapter.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.weights import load_config

GOLDEN = Path(__file__).parent
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.05, targets=("q_proj", "v_proj", "down_proj"))


def golden_adapter(config: LlamaConfig) -> dict[str, Any]:
    """An adapter with random a and b, the same every time."""
    random = np.random.default_rng(7)
    layers = {}
    for target in LORA.targets:
        size_in, size_out = config.projection_shapes()[target]
        layers[target] = {
            "a": random.normal(0, 0.3, (config.num_layers, size_in, LORA.rank)).astype(np.float32),
            "b": random.normal(0, 0.3, (config.num_layers, LORA.rank, size_out)).astype(np.float32),
        }
    return {"layers": layers}


if __name__ == "__main__":
    config = load_config(str(GOLDEN / "untied"))
    export_peft(GOLDEN / "adapter", golden_adapter(config), LORA, config, "untied")
