"""Makes the golden files from the reference implementations: transformers and peft on torch.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 gguf==0.19.0 safetensors
    python tests/models/golden/make_goldens.py checkpoints
    python tests/models/golden/export_adapter.py /tmp/merged  (in the project's environment)
    python tests/models/golden/make_goldens.py adapter
    python tests/models/golden/make_goldens.py merged /tmp/merged
    python tests/models/golden/make_goldens.py smollm2 /path/to/SmolLM2-135M-Instruct.Q4_1.gguf

checkpoints  untied/ tied/ llama3/ (tiny random Llamas) and their logits in checkpoints.npz
adapter      logits of untied/ with adapter/, as peft reads it, in adapter.npz
merged       logits of the merged checkpoints as transformers reads them, every 4th of 64 positions,
             and the configurations it read, in merged.npz
smollm2      top-1 tokens, some logits and greedy continuations in smollm2.npz, token ids of varied
             texts in smollm2_tokenizer.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).parent
NUM_POSITIONS = 160
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PROMPTS = [
    "<|im_start|>user\nWhat should I cook tonight?<|im_end|>\n<|im_start|>assistant\n",
    "The capital of France is Paris, and the capital of Italy is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
]
TEXTS = [
    "",
    "Hello world",
    " leading space",
    "   three  inner   runs ",
    "line one\nline two\n\n\tindented\r\n",
    "It's what they'd've said: we'll, I'm, you're!",
    "numbers 7 42 1999 3.14159 1,000,000 and v2.0b3",
    "for i in range(10):\n    print(f'{i:>3}', x[i] ** 2)  # comment\n",
    "Grüße aus Köln, ça va? naïve façade",
    "日本語のテキストと中文和한국어",
    "emoji 👩‍👩‍👧 🎉🏳️‍🌈 and maths ∑∫≠",
    "العربية עברית ไทย हिन्दी",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
    "text<|endoftext|>more <|im_end|> text",
    "<|not_a_token|> <repo_name> <file_sep>",
    "a\u00a0b\u200bc\u3000d e\u0301",
    "http://example.org/path?q=1&r=%20#frag",
    "ALLCAPS camelCase snake_case kebab-case",
    "!!!???...;;;---___***",
    "    \n    \n",
]


def make_checkpoints() -> None:
    logits = {}
    random = np.random.default_rng(0)
    tokens = random.integers(3, SIZES["vocab_size"], NUM_POSITIONS)
    for name, options, dtype, shard_size in (
        ("untied", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
         torch.float32, "40KB"),
        ("tied", {"rope_parameters": {"rope_type": "default", "rope_theta": 3000.0},
                  "tie_word_embeddings": True}, torch.bfloat16, "1GB"),
        ("llama3", {"rope_parameters": {**LLAMA3, "rope_theta": 50000.0}}, torch.bfloat16, "1GB"),
    ):  # fmt: skip
        torch.manual_seed(0)
        config = LlamaConfig(**SIZES, **{"tie_word_embeddings": False, **options})
        model = LlamaForCausalLM(config).to(dtype)
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:  # all ones at first: a forgotten norm would go unseen
                parameter.data += 0.2 * torch.randn_like(parameter)
        directory = GOLDEN / name
        model.save_pretrained(directory, max_shard_size=shard_size)
        (directory / "generation_config.json").unlink()
        if name != "untied":  # as transformers 4 wrote it
            _to_version_4(directory / "config.json")
        model = LlamaForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        )
        logits[name] = _logits(model, tokens)
        print(name, "logit scale", np.abs(logits[name]).max())
    np.savez_compressed(GOLDEN / "checkpoints.npz", tokens=tokens.astype(np.int32), **logits)


def _to_version_4(path: Path) -> None:
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_adapter() -> None:
    from peft import PeftModel

    tokens = np.load(GOLDEN / "checkpoints.npz")["tokens"]
    base = LlamaForCausalLM.from_pretrained(
        GOLDEN / "untied", dtype=torch.float32, attn_implementation="eager"
    )
    without = _logits(base, tokens)
    logits = _logits(PeftModel.from_pretrained(base, GOLDEN / "adapter"), tokens)
    print("effect of the adapter", np.abs(logits - without).max())
    np.savez_compressed(GOLDEN / "adapter.npz", logits=logits)


def make_merged(directory: Path) -> None:
    tokens = np.load(GOLDEN / "checkpoints.npz")["tokens"][:64] % 60  # in all vocabularies
    arrays = {"tokens": tokens}
    for path in sorted(directory.iterdir()):
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        )
        arrays[path.name] = _logits(model, tokens)[::4]
        arrays[f"{path.name}_config"] = np.array((path / "config.json").read_text())
        print(path.name, "logit scale", np.abs(arrays[path.name]).max())
    np.savez_compressed(GOLDEN / "merged.npz", **arrays)


def make_smollm2(path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ids = {text: tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS}
    (GOLDEN / "smollm2_tokenizer.json").write_text(
        "{\n" + ",\n".join(f"{json.dumps(t)}: {json.dumps(i)}" for t, i in ids.items()) + "\n}\n"
    )
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    arrays = {}
    for number, prompt in enumerate(PROMPTS):
        tokens = np.array(tokenizer(prompt, add_special_tokens=False).input_ids)
        logits = _logits(model, tokens)
        generated = model.generate(
            torch.tensor(tokens)[None], attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            do_sample=False, max_new_tokens=24, eos_token_id=2, pad_token_id=0,
            repetition_penalty=1.0,
        )  # fmt: skip
        continuation = generated[0, len(tokens) :].numpy()
        # Near ties would make the test a matter of rounding.
        print(number, len(tokens), "least margin", _margin(logits).min(),
              "of the continuation", _margin(_logits(model, generated[0].numpy())).min(),
              repr(tokenizer.decode(continuation)))  # fmt: skip
        arrays[f"tokens{number}"] = tokens.astype(np.int32)
        arrays[f"top1_{number}"] = logits.argmax(-1).astype(np.int32)
        arrays[f"last_logits{number}"] = logits[-1, ::97]  # every 97th of the vocabulary
        arrays[f"continuation{number}"] = continuation.astype(np.int32)
    np.savez_compressed(GOLDEN / "smollm2.npz", **arrays)


def _logits(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens, dtype=torch.long)[None]).logits[0].float().numpy()


def _margin(logits: np.ndarray) -> np.ndarray:
    top2 = np.sort(logits, axis=-1)[:, -2:]
    return top2[:, 1] - top2[:, 0]


if __name__ == "__main__":
    if sys.argv[1] == "checkpoints":
        make_checkpoints()
    elif sys.argv[1] == "adapter":
        make_adapter()
    elif sys.argv[1] == "merged":
        make_merged(Path(sys.argv[2]))
    else:
        make_smollm2(Path(sys.argv[2]))
