from __future__ import annotations

import jax
import numpy as np
import pytest

from paretohqd_jax.errors import InputError
from paretohqd_jax.models.llama import Llama, init_params
from paretohqd_jax.models.lora import LoraConfig, init_adapters
from paretohqd_jax.models.match import init_match, mismatch
from paretohqd_jax.models.reward_head import compute_rewards, read_adapter, write_adapter
from paretohqd_jax.models.weights import TOY_CONFIG, load_config, load_pretrained

LORA = LoraConfig(rank=2, alpha=4.0, targets=("q_proj", "up_proj"), head=True)


def test_an_adapter_is_read_as_it_was_written(tmp_path):
    stack = init_adapters(jax.random.key(0), TOY_CONFIG, LORA, 1)
    adapter = jax.tree.map(lambda leaf: np.asarray(leaf[0]) + 0.1, stack)
    assert adapter["head"].shape == (2, TOY_CONFIG.hidden_size)
    write_adapter(tmp_path / "reward_model.safetensors", adapter, LORA, 2)
    read, lora, num_layers = read_adapter(tmp_path / "reward_model.safetensors")
    assert (lora, num_layers) == (LORA, 2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.float16(a), b), adapter, read)


def test_a_file_whose_head_reads_the_mean_alone_is_one_still(tmp_path):
    head = np.arange(3, dtype=np.float32)
    write_adapter(tmp_path / "reward_model.safetensors", {"head": head}, LORA, 2)
    read, _, _ = read_adapter(tmp_path / "reward_model.safetensors")
    np.testing.assert_array_equal(read["head"], [head, [0, 0, 0]])


def test_a_head_reads_the_mean_state_and_the_last_one():
    model = Llama(TOY_CONFIG, LORA)
    params = init_params(jax.random.key(0), TOY_CONFIG)
    adapter = jax.tree.map(
        lambda leaf: leaf[0], init_adapters(jax.random.key(1), TOY_CONFIG, LORA, 1)
    )
    adapter["head"] = jax.random.normal(jax.random.key(2), adapter["head"].shape)
    tokens = np.arange(12).reshape(2, 6) % 7
    mask = np.arange(6) < np.array([[6], [4]])
    rewards = compute_rewards(model, params, adapter, tokens, mask)
    hidden = np.asarray(model.apply({"params": params, "lora": adapter}, tokens, mask)[0])
    for row, length in enumerate((6, 4)):
        states = hidden[row, :length]
        due = states.mean(axis=0) @ adapter["head"][0] + states[-1] @ adapter["head"][1]
        np.testing.assert_allclose(rewards[row], due, rtol=1e-4)
    others = {"mean": 0.5, "deviation": 0.1, "penalty": 10.0, "word_pairs": np.array([[-1] * 3])}
    adapter["match"] = init_match(jax.random.key(3), TOY_CONFIG.hidden_size, 4) | others
    is_response = np.arange(6) >= np.array([[2], [2]])
    less = compute_rewards(model, params, adapter, tokens, mask, is_response=is_response)
    lost = mismatch(adapter["match"], params["embed_tokens"], tokens, mask, is_response)
    np.testing.assert_allclose(less, rewards - lost, rtol=1e-5)


@pytest.mark.parametrize("content", [None, b"nothing", "other"])
def test_other_files_are_no_adapters(tmp_path, content):
    path = tmp_path / "reward_model.safetensors"
    if content == "other":
        from safetensors.numpy import save_file

        save_file({"head": np.zeros(3)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="no adapter of a reward model"):
        read_adapter(path)


def test_the_first_layers_of_a_checkpoint_are_its_own(tmp_path):
    source = "tests/models/golden/tied"
    config, whole = load_pretrained(source)
    first_config, first = load_pretrained(source, num_layers=1)
    assert first_config.num_layers == 1 < config.num_layers
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:1], b), whole["layers"], first["layers"]
    )
    np.testing.assert_array_equal(whole["embed_tokens"], first["embed_tokens"])
    with pytest.raises(InputError, match=r"has 2 layers, not 3"):
        load_config(source, num_layers=3)
