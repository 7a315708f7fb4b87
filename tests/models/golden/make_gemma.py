"""Makes gemma2/ and gemma3/, tiny random checkpoints, and their golden logits in gemma.npz.

    pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/models/golden/make_gemma.py

The reference is transformers on torch, the rows are those of make_families.py. That the text part
of a model that sees gives the same logits, and under which names its weights are stored, is checked
and printed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_families import GOLDEN, SIZES, reference_logits
from safetensors import safe_open
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedModel,
)

COMMON = {
    "head_dim": 16,
    "query_pre_attn_scalar": 10,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
# The soft caps are low enough to be felt.
GEMMA2 = COMMON | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
GEMMA3 = COMMON | {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    },
}


def make_checkpoint(model: PreTrainedModel, directory: Path) -> None:
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)


def as_version_4(path: Path) -> None:
    """Rewrites a config.json in the words that Gemma 3's checkpoints were published with."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"].pop("rope_theta")
    config["rope_scaling"] = rope["full_attention"]
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config.pop("layer_types")
    config.pop("_sliding_window_pattern", None)
    config["sliding_window_pattern"] = 2
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.50.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_seeing(model: Gemma3ForCausalLM, rows: list[np.ndarray], expected: np.ndarray) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(text_config=model.config.to_dict(), vision_config=vision,
                          mm_tokens_per_image=4)  # fmt: skip
    seeing = Gemma3ForConditionalGeneration(config)
    seeing.model.language_model.load_state_dict(model.model.state_dict())
    print(next(n for n, _ in seeing.named_modules() if "language" in n and n.endswith("q_proj")))
    with tempfile.TemporaryDirectory() as folder:
        seeing.to(torch.bfloat16).save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", "np") as file:
            print(sorted({".".join(name.split(".")[:3]) for name in file.keys()}))
        assert np.abs(reference_logits(Path(folder), rows) - expected).max() < 1e-4


def main() -> None:
    families = np.load(GOLDEN / "families.npz")
    ends = np.cumsum(families["lengths"])
    rows = np.split(families["tokens"].astype(np.int64), ends[:-1])
    torch.manual_seed(0)
    third = Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, **GEMMA3}))
    make_checkpoint(third, GOLDEN / "gemma3")
    as_version_4(GOLDEN / "gemma3" / "config.json")
    second = Gemma2ForCausalLM(Gemma2Config(**{**SIZES, **GEMMA2}))
    make_checkpoint(second, GOLDEN / "gemma2")
    logits = {name: reference_logits(GOLDEN / name, rows) for name in ("gemma2", "gemma3")}
    np.savez_compressed(GOLDEN / "gemma.npz", **logits)
    check_seeing(third, rows, logits["gemma3"])


if __name__ == "__main__":
    main()
