"""Makes rope.npz, the golden logits of scaled rotary positions: transformers on torch.

    pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/models/golden/make_rope.py

The weights are those of qwen3/; what VARIANTS change in its config.json goes into the file too, and
the tokens are those of families.npz. Every row is computed alone, the shortest first: the kinds
that depend on a text's length would take that of the longest, in the batch or so far.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).parent
SHORT = [1.0, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0]
LONG = [1.0, 1.3, 1.8, 2.5, 3.5, 5.0, 7.0, 9.0]
VARIANTS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
    "yarn_in_full": {
        "rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 50,
        "beta_fast": 9.0, "beta_slow": 0.4, "truncate": False, "mscale": 0.7,
        "mscale_all_dim": 1.6,
    },
    "longrope": {
        "rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG,
        "original_max_position_embeddings": 32,
    },
    "longrope_in_full": {
        "rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 3.0,
        "attention_factor": 1.3, "original_max_position_embeddings": 100,
    },
}  # fmt: skip
CONTEXT = {"dynamic": 60}  # for the others as the checkpoint says, 256


def config_changes(name: str) -> dict:
    """What a variant changes in config.json."""
    changes = {"rope_parameters": {"rope_theta": 5000.0, **VARIANTS[name]}}
    return changes | {"max_position_embeddings": CONTEXT.get(name, 256)}


def reference_logits(changes: dict, rows: list[np.ndarray]) -> np.ndarray:
    """Logits of every second token, one row after the other, of every ninth word."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(shutil.copytree(GOLDEN / "qwen3", folder, dirs_exist_ok=True))
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    with torch.no_grad():
        logits = [model(torch.tensor(row)[None]).logits[0].numpy() for row in rows[::-1]]
    return np.concatenate(logits[::-1])[::2, ::9]


def main() -> None:
    families = np.load(GOLDEN / "families.npz")
    ends = np.cumsum(families["lengths"])
    rows = np.split(families["tokens"].astype(np.int64), ends[:-1])
    changes = {name: config_changes(name) for name in VARIANTS}
    logits = {name: reference_logits(changes[name], rows) for name in VARIANTS}
    for name in VARIANTS:
        print(name, np.abs(logits[name] - families["qwen3"][::2, ::3]).max())
    np.savez_compressed(GOLDEN / "rope.npz", changes=json.dumps(changes), **logits)


if __name__ == "__main__":
    main()
