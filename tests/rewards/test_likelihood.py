"""The likelihood of responses against their logits, token by token."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.tokenizer import load_tokenizer
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.rewards.likelihood import _encode
from paretohqd_jax.rewards.reward_model import BOUNDARY
from paretohqd_jax.rewards.scoring import load_scorer, score
from paretohqd_jax.training.mesh import DECODING_RULES, make_mesh, sharded

PROMPTS = ["a", "bb", "hello there", "a"]
RESPONSES = ["x", "it is", "no and so on", ""]
TOY = SimpleNamespace(source="random:toy", prompt_format="{prompt}:")


def mean_log_prob(source: str, text: str, response: str) -> float:
    tokenizer, (config, params) = load_tokenizer(source), load_pretrained(source)
    before, after = (
        tokenizer(part, add_special_tokens=False).input_ids for part in (text, response)
    )
    hidden, _ = Llama(config).apply({"params": params}, jnp.array([before + after]))
    log_probs = jax.nn.log_softmax(compute_logits(hidden, output_embedding(params, config)))[0]
    return np.mean([log_probs[len(before) - 1 + i, token] for i, token in enumerate(after)])


def test_it_is_the_mean_over_the_tokens_of_the_response_in_the_runs_format():
    rewards = score(PROMPTS, RESPONSES, ["likelihood"], batch_size=2, base=TOY)[:, 0]
    expected = [
        mean_log_prob("random:toy", f"{prompt}:", response)
        for prompt, response in zip(PROMPTS[:3], RESPONSES, strict=False)
    ]
    np.testing.assert_allclose(rewards[:3], expected, rtol=1e-5)
    assert rewards[3] == 0  # of no tokens


def test_another_model_is_asked_in_its_own_chat_or_in_plain_text(checkpoint):
    rewards = score(["a"], ["x"], ["likelihood@random:toy"], base=TOY)
    text = "user: a\nassistant: "
    np.testing.assert_allclose(rewards, [[mean_log_prob("random:toy", text, "x")]], rtol=1e-5)
    plain = checkpoint(
        "llama",
        lambda tensors: (
            tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]})
            or tensors.pop("score.weight")
        ),
        architectures=["LlamaForCausalLM"],
    )
    rewards = score(["a"], ["so"], [f"likelihood@{plain}"])
    np.testing.assert_allclose(rewards, [[mean_log_prob(plain, "a\n", "so")]], rtol=1e-5)


def test_it_does_not_depend_on_the_mesh():
    expected = score(PROMPTS, RESPONSES, ["likelihood"], batch_size=3, base=TOY)
    with sharded(make_mesh(2, 2, 2), DECODING_RULES):
        rewards = score(PROMPTS, RESPONSES, ["likelihood"], batch_size=3, base=TOY)
        variables = load_scorer("likelihood", "jax", "float32", TOY).params
    kernel = variables["params"]["embed_tokens"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-4)


def test_texts_beyond_the_context_lose_their_beginning():
    tokenizer = load_tokenizer("random:toy")
    tokens, is_cut = _encode(
        tokenizer, "{prompt}", 5, ["abcd", "abcd", "ab"], ["xyz", "uvwxyz", "z"]
    )
    letters = [
        "".join("|" if i == BOUNDARY else tokenizer.decode([i]) for i in ids) for ids in tokens
    ]
    assert letters == ["cd|xyz", "d|wxyz", "ab|z"] and is_cut == [True, True, False]


def test_outside_a_run_a_model_has_to_be_named():
    with pytest.raises(InputError, match="no base model outside a run; .* as likelihood@DIRECTORY"):
        score(["a"], ["x"], ["likelihood"])
