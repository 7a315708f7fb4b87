"""The objective of policies, on a tiny model: which tokens count, and at what temperature."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paretohqd_jax.models.llama import Llama, compute_logits, output_embedding
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.weights import load_pretrained
from paretohqd_jax.training.policy_gradient import (
    Answers,
    Judged,
    answer_log_probs,
    policy_objective,
)

ROWS = (([5, 6, 7], [8, 9]), ([5], [6, 7, 8, 9]), ([9, 8], [3, 3, 3]))  # prompts and answers
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def setting():
    config, params = load_pretrained("random:toy")
    model = Llama(config, LoraConfig(rank=2, alpha=4.0, dropout=0.0))
    adapter = jax.tree.map(
        lambda leaf: leaf[0] + 0.1, init_adapters(jax.random.key(0), config, model.lora, 1)
    )
    tokens, real = np.zeros((3, 8), np.int32), np.zeros((3, 8), bool)
    for row, (prompt, answer) in enumerate(ROWS):
        tokens[row, : len(prompt + answer)] = prompt + answer
        real[row, : len(prompt + answer)] = True
    starts, lengths = np.array([[len(prompt), len(answer)] for prompt, answer in ROWS]).T
    answered = np.arange(4) < lengths[:, None]
    advantages = jnp.array([1.0, -0.5, 0.25])
    return model, params, adapter, Answers(tokens, real, starts, answered, advantages)


@pytest.mark.parametrize("soft_cap", [None, 0.1])
def test_log_probs_are_those_of_the_answers_at_the_temperature(setting, soft_cap):
    model, params, adapter, answers = setting
    config = dataclasses.replace(model.config, logit_soft_cap=soft_cap)
    model = Llama(config, model.lora)
    found = answer_log_probs(model, {"params": params, "lora": adapter}, answers, TEMPERATURE)
    for row, (prompt, answer) in enumerate(ROWS):
        text = jnp.array([prompt + answer])
        hidden, _ = model.apply({"params": params, "lora": adapter}, text)
        logits = compute_logits(hidden[0], output_embedding(params, config), soft_cap)
        every = jax.nn.log_softmax(logits / TEMPERATURE)[len(prompt) - 1 : -1]
        expected = every[jnp.arange(len(answer)), jnp.array(answer)]
        np.testing.assert_allclose(found[row, : len(answer)], expected, rtol=1e-4, atol=1e-5)


def test_answers_that_are_learnt_from_once_need_no_log_probs_of_their_own(setting):
    model, params, adapter, answers = setting
    variables = {"params": params, "lora": adapter}
    reference = answer_log_probs(Llama(model.config), {"params": params}, answers, TEMPERATURE)
    sampled = answer_log_probs(model, variables, answers, TEMPERATURE)
    objective, key = policy_objective(0.2, 0.3, TEMPERATURE), jax.random.key(0)

    def loss(adapter, sampled):
        return objective.loss(model, params, adapter, Judged(answers, reference, sampled), key)

    once, alike = (jax.value_and_grad(loss)(adapter, own) for own in (None, sampled))
    np.testing.assert_allclose(once[0], alike[0], rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), once[1], alike[1])
    assert objective.num_terms(Judged(answers, reference, None)) == 9
    # The loss is the divergence times its weight, less the mean advantage of the tokens.
    difference = (reference - sampled)[answers.answer_mask]
    divergence = (jnp.expm1(difference) - difference).mean()
    mean_advantage = (2 * 1.0 - 4 * 0.5 + 3 * 0.25) / 9
    np.testing.assert_allclose(once[0], 0.3 * divergence - mean_advantage, rtol=1e-4)
