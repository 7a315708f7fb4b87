"""Makes sentencepiece/: a tiny SentencePiece model, texts, and their ids as transformers reads it.

    pip install torch==2.13.0 transformers==5.24.0 sentencepiece gguf==0.19.0 protobuf
    python tests/models/golden/make_sentencepiece.py

ids.npz has the texts and the ids of all, each text's followed by -1: by directories with
tokenizer.model and `legacy` true or false, and by GGUF files of the architectures llama and gemma3.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
from gguf_of_sentencepiece import write_gguf
from transformers import AutoTokenizer

GOLDEN = Path(__file__).parent / "sentencepiece"
DOCS = Path(__file__).parents[3] / "docs"
SCRIPTS = [
    "Привет, мир! Как дела?", "日本語のテキストと漢字", "مرحبا بالعالم", "नमस्ते दुनिया",
    "naïve café e\u0301", "Γειά σου Κόσμε", "שלום עולם", "안녕하세요 세계", "ไทย", "Åß∂ƒ",
    "zero\u200bwidth\u200d", "\u2581 is no blank",
]  # fmt: skip
PARTS = [
    *SCRIPTS, "🎉", "👩‍👩‍👧 🇩🇪", "👍🏽", " ", "  ", "   ", "\n", "\n\n", "\t", "\u00a0", "12345",
    "3.14", "1,000,000", "0x1F", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<table>",
    "<0x0A>", "Human:", "Assistant:", "The hypervolume", "it's", "don't!", "config.data.source",
    "paretohqd_jax", "x_i = (a + b) / 2", "hello world", "...", "(c)", "\x00", "\u2581",
]  # fmt: skip


def train(directory: Path) -> None:
    lines = [line for path in sorted(DOCS.glob("*.md")) for line in path.read_text().splitlines()]
    corpus = directory / "corpus.txt"
    corpus.write_text("\n".join([line for line in lines if line.strip()] + 4 * SCRIPTS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(directory / "tokenizer"), vocab_size=640,
        model_type="bpe", byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False, normalization_rule_name="identity", num_threads=1,
        character_coverage=0.997, max_sentence_length=20000, minloglevel=2,
        control_symbols=["<|im_start|>", "<|im_end|>"], user_defined_symbols=["<table>"],
    )  # fmt: skip


def texts() -> list[str]:
    chosen = random.Random(0)
    mixed = ["".join(chosen.choices(PARTS, k=chosen.randint(2, 6))) for _ in range(200)]
    return [*PARTS, *mixed][:200]


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    rows, ids = texts(), {}
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder))
        shutil.copy(Path(folder, "tokenizer.model"), GOLDEN)
    for legacy in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(GOLDEN / "tokenizer.model", folder)
            values = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True}
            Path(folder, "tokenizer_config.json").write_text(json.dumps(values))
            Path(folder, "config.json").write_text(json.dumps({"model_type": "llama"}))
            ids[f"legacy {legacy}"] = encoded(AutoTokenizer.from_pretrained(folder), rows)
    for architecture in ("llama", "gemma3"):
        with tempfile.TemporaryDirectory() as folder:
            write_gguf(Path(folder, "model.gguf"), GOLDEN / "tokenizer.model", architecture)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
            ids[architecture] = encoded(tokenizer, rows)
    np.savez_compressed(GOLDEN / "ids.npz", texts=json.dumps(rows), **ids)
    for name in ids:
        print(name, len(ids[name]), (ids[name][:40]).tolist())


def encoded(tokenizer, rows: list[str]) -> np.ndarray:
    return np.array([i for row in rows for i in [*tokenizer(row).input_ids, -1]], np.int16)


if __name__ == "__main__":
    main()
