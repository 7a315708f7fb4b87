"""Writes `adapter/`, what `export_peft` makes of a fixed adapter for the checkpoint `untied`.

And, in a directory that make_goldens.py reads, what `export_merged` makes of fixed adapters for
`untied`, `qwen3` and random:toy. Run with the project's environment, then make_goldens.py with
torch's:
    python tests/models/golden/export_adapter.py /tmp/merged
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from paretohqd_jax.models.llama import LlamaConfig
from paretohqd_jax.models.lora import LoraConfig
from paretohqd_jax.models.merging import export_merged
from paretohqd_jax.models.peft import export_peft
from paretohqd_jax.models.weights import RANDOM_TOY, load_config

GOLDEN = Path(__file__).parent
MERGED = {
    "untied": str(GOLDEN / "untied"), "qwen3": str(GOLDEN / "qwen3"), "toy": RANDOM_TOY
}  # fmt: skip
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
    for name, source in MERGED.items():
        adapter = golden_adapter(load_config(source))
        export_merged(Path(sys.argv[1]) / name, source, adapter, LORA, "float32", 40_000)
